"""Lists of words: to ask an image-text model for, and to look for in texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files


COLOURS = (
    "a black object", "a white object", "a grey object", "a red object", "an orange object", "a yellow object",
    "a green object", "a blue object", "a purple object", "a pink object", "a brown object", "a golden object",
)  # fmt: skip
SCENES = (
    "a forest", "bamboo", "a meadow", "a field", "a beach", "the sea", "a lake", "a river", "a mountain", "a desert",
    "snow", "ice", "the sky", "clouds", "a sunset", "night", "fog", "rain", "a garden", "flowers", "grass", "a tree",
    "a street", "a road", "a city", "a building", "a bridge", "a stadium", "a shop", "an office", "a kitchen",
    "a bedroom", "a bathroom", "a living room", "a classroom", "a hospital", "a laboratory", "a stage", "a fence",
    "a cage", "a wall", "a table", "a carpet", "a plain background", "a dark background", "a bright background",
    "the ground",
    "under water", "indoors", "outdoors",
)  # fmt: skip
PEOPLE = (
    "a person", "a man", "a woman", "a child", "a baby", "an old person", "a group of people", "a crowd", "a face",
    "a hand", "a smiling person", "long hair", "short hair", "blond hair", "dark hair", "a bald head", "a beard",
    "glasses", "sunglasses", "a hat", "a uniform", "a suit", "a dress", "make-up", "jewellery", "a tattoo",
)  # fmt: skip
TEXT_IN_IMAGE = (
    "written text", "a watermark", "a logo", "a date stamp", "a caption", "handwriting", "a number", "a sign",
    "a ruler",
    "a label", "a barcode", "an arrow", "a picture frame", "a black border", "a white border", "a drawing",
    "a screenshot", "a black and white photo", "a blurred photo", "a collage",
)  # fmt: skip

WORD_LISTS = {
    "negation": "no not never none nobody nothing neither nor nowhere cannot without hardly scarcely barely isn't "
    "aren't wasn't weren't don't doesn't didn't won't wouldn't can't couldn't shouldn't haven't hasn't hadn't ain't "
    "mustn't",
    "politeness": "please thank thanks sorry pardon excuse welcome appreciate appreciated grateful kindly sincerely "
    "regards apologies apologize apologise",
    "doubt": "maybe perhaps possibly probably might seem seems seemed apparently presumably supposedly guess unsure "
    "uncertain doubt doubtful likely",
    "certainty": "always certainly definitely clearly obviously surely undoubtedly absolutely truly indeed must "
    "every all",
    "the writer": "i me my mine myself i'm i've i'd i'll",
    "the reader": "you your yours yourself you're you've you'd you'll",
    "women": "woman women female females she her hers herself girl girls lady ladies mother mothers wife wives "
    "daughter daughters sister sisters actress waitress queen girlfriend feminist feminists she's mom mum aunt "
    "grandmother",
    "men": "man men male males he him his himself boy boys gentleman gentlemen father fathers husband husbands son "
    "sons brother brothers actor waiter king boyfriend guy guys he's dad uncle grandfather",
    "children and young people": "child children kid kids baby babies toddler teenager teenagers teen teens infant "
    "youth young youngster pupil schoolchildren",
    "old people": "elderly old aged senior seniors pensioner pensioners retired retiree grandparents grandma "
    "grandpa elder elders",
    "Black people": "black blacks african africans negro colored",
    "white people": "white whites caucasian caucasians",
    "Asian people": "asian asians chinese japanese korean koreans indian indians vietnamese filipino filipinos",
    "Latin Americans": "latino latina latinos latinas hispanic hispanics mexican mexicans",
    "Muslims": "muslim muslims islam islamic mosque imam koran quran hijab arab arabs",
    "Christians": "christian christians christianity church churches catholic catholics protestant bible jesus "
    "christ pope priest",
    "Jews": "jew jews jewish judaism synagogue rabbi israeli israelis israel",
    "gay, lesbian and transgender people": "gay gays lesbian lesbians homosexual homosexuals homosexuality bisexual "
    "transgender transsexual queer lgbt lgbtq trans",
    "disabled and ill people": "disabled disability disabilities wheelchair blind deaf autistic autism handicapped "
    "schizophrenic depression bipolar",
    "migrants": "immigrant immigrants immigration migrant migrants refugee refugees foreigner foreigners alien "
    "aliens undocumented",
    "political camps": "liberal liberals conservative conservatives republican republicans democrat democrats "
    "leftist socialist communist tory tories",
    "the screen": "film films movie movies cinema scene scenes plot director cast screenplay screen sequel actors "
    "acting character characters episode series show",
    "products": "product products bought buy purchase purchased price quality battery camera phone player device "
    "item amazon shipping warranty",
}
"""Name -> words that are looked for in texts, in lower case; none that praise or blame, which often are the class."""

_LISTS = {"colours": COLOURS, "scenes": SCENES, "people": PEOPLE, "text": TEXT_IN_IMAGE}


def imagenet_lemmas() -> list[str]:
    """Return the WordNet lemmas of ImageNet's 1,000 classes in id order, the first of each, from timm."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(k).split(",")[0] for k in range(info.num_classes())]


def words_of(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of a named list ("imagenet", "colours", "scenes", "people", "text"), or the words themselves.

    Raises:
        ValueError: if a name is unknown, or there are no words; repeated words are taken once.
    """
    if isinstance(chosen, str):
        if chosen != "imagenet" and chosen not in _LISTS:
            raise ValueError(
                f"unknown vocabulary {chosen!r}; choose one of {['imagenet', *_LISTS]}, or give a list of words"
            )
        chosen = imagenet_lemmas() if chosen == "imagenet" else _LISTS[chosen]
    words = tuple(dict.fromkeys(word.strip() for word in chosen if word.strip()))
    if not words:
        raise ValueError("the vocabulary is empty; give at least one word")
    return words


@lru_cache
def table(name: str) -> dict[str, str]:
    """Return a table that comes with the package, derived from WordNet: entry -> what it holds, as text."""
    file = files("hf_midrange.concepts") / "wordnet" / f"{name}.tsv"
    return dict(line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines())
