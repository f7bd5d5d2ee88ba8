"""The list of tasks on real data."""

from __future__ import annotations

from functools import partial
from itertools import combinations

from tasks.identities import identities
from tasks.natural import NATURAL
from tasks.pictures import clothes_dominoes, digit_dominoes, on_photographs, plain_digits, striped_digits
from tasks.pool import Task
from tasks.reviews import review_domains, review_topics
from tasks.sprites import sprite_places


CLOTHES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

TASKS = [
    Task("digits 3/8", partial(digit_dominoes, (3, 8))),
    Task("digits 4/9", partial(digit_dominoes, (4, 9))),
    Task("digits 3/5/8", partial(digit_dominoes, (3, 5, 8))),
    Task("stripes 3/8", partial(striped_digits, (3, 8))),
    Task("sprites", sprite_places),
    Task("praise of women", identities),
    Task("movies/products", partial(review_domains, ("movies", "products")), "reviews"),
    Task("people/story", review_topics, "reviews"),
    Task("news/tweets", partial(review_domains, ("news", "tweets")), "reviews", aside=True),
    Task("clothes 2", partial(clothes_dominoes, (2, 4), ("pullover", "coat")), "fashion", aside=True),
    Task(
        "clothes 5",
        partial(clothes_dominoes, (0, 2, 3, 4, 6), ("t-shirt", "pullover", "dress", "coat", "shirt")),
        "fashion",
        aside=True,
    ),
    Task("clothes 10", partial(clothes_dominoes, range(10), CLOTHES), "fashion", aside=True),
    Task("photographs", partial(on_photographs, (2, 4), ("pullover", "coat")), "fashion", aside=True),
]

PLAIN = [Task(f"plain {i}/{j}", partial(plain_digits, (i, j))) for i, j in combinations(range(10), 2)]
"""Pairs of digits without any confounder."""

SETS = {"real": TASKS, "natural": NATURAL, "plain": PLAIN}


def tasks_named(name: str) -> list[Task]:
    """Return the task of a name, or a set: `real`, `natural` (on the user's own files), `plain` (without confounder).

    Raises:
        ValueError: if there is none; the message lists the names.
    """
    every = {task.name: [task] for tasks in SETS.values() for task in tasks} | SETS
    if name not in every:
        raise ValueError(f"no task {name!r}; choose of {', '.join(map(repr, every))}")
    return every[name]
