"""The list of tasks on real data."""

from __future__ import annotations

from functools import partial

from tasks.natural import NATURAL
from tasks.pictures import clothes_dominoes, digit_dominoes, on_photographs, striped_digits
from tasks.pool import Task
from tasks.reviews import review_domains, review_topics
from tasks.sprites import sprite_places


REVIEW_SIZES = {"train": 800, "curation": 560, "test": 600}
TOPIC_SIZES = {"train": 560, "curation": 360, "test": 600}
SHORT_SIZES = {"train": 600, "curation": 400, "test": 600}

CLOTHES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

TASKS = [
    Task("digits 3/8", partial(digit_dominoes, (3, 8))),
    Task("digits 4/9", partial(digit_dominoes, (4, 9))),
    Task("digits 3/5", partial(digit_dominoes, (3, 5))),
    Task("stripes 3/8", partial(striped_digits, (3, 8))),
    Task("sprites", sprite_places),
    Task("clothes 2", partial(clothes_dominoes, (2, 4), ("pullover", "coat")), data="fashion"),
    Task("clothes 3", partial(clothes_dominoes, (0, 2, 4), ("t-shirt", "pullover", "coat")), data="fashion"),
    Task(
        "clothes 5",
        partial(clothes_dominoes, (0, 2, 3, 4, 6), ("t-shirt", "pullover", "dress", "coat", "shirt")),
        data="fashion",
    ),
    Task("clothes 10", partial(clothes_dominoes, range(10), CLOTHES), data="fashion"),
    Task("photographs", partial(on_photographs, (2, 4), ("pullover", "coat")), data="fashion"),
    Task("movies/products", partial(review_domains, ("movies", "products")), data="reviews", sizes=REVIEW_SIZES),
    Task("people/story", review_topics, data="reviews", sizes=TOPIC_SIZES),
    Task("news/tweets", partial(review_domains, ("news", "tweets")), data="reviews", sizes=SHORT_SIZES),
    Task("digits 7/9", partial(digit_dominoes, (7, 9))),
    Task("stripes 4/9", partial(striped_digits, (4, 9))),
    Task("sandal/sneaker", partial(clothes_dominoes, (5, 7), ("sandal", "sneaker")), data="fashion"),
    Task("shirts on photographs", partial(on_photographs, (0, 6), ("t-shirt", "shirt")), data="fashion"),
    Task("news/products", partial(review_domains, ("news", "products")), data="reviews", sizes=REVIEW_SIZES),
    Task("movies/tweets", partial(review_domains, ("movies", "tweets")), data="reviews", sizes=SHORT_SIZES),
]


def task_named(name: str) -> Task:
    """Return the task of that name, of those here and those on the user's own files.

    Raises:
        ValueError: if there is none; the message lists the names.
    """
    every = [*TASKS, *NATURAL]
    for task in every:
        if task.name == name:
            return task
    raise ValueError(f"no task {name!r}; choose of {', '.join(repr(task.name) for task in every)}")
