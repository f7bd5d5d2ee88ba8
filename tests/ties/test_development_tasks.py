"""The true tie is one shortcut, first, with a right name, on four kinds of rows and ten seeds; untied texts have none.

The digits are scikit-learn's and the models are probes on pixels and counts of words, so that each seed takes seconds.
Untied pictures are no test here: to a probe on pixels, where the mass of a digit lies is the class itself.
"""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import HashingVectorizer

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.demo.domino_trial import linear_probe


pytestmark = pytest.mark.slow

ROWS, CONTRARY, SEEDS = 800, 0.05, range(10)
WARM, COOL = np.array([1.0, 0.8, 0.45]), np.array([0.5, 0.75, 1.0])
GOOD = "lovely superb moving clever warm funny tender bright gripping charming".split()
BAD = "dull awful weak silly cold boring clumsy grim tedious bland".split()
FILL = (
    "the a this that film story plot scene end cast and with of in was is very quite it then she he they time".split()
)


def tied_labels(rng, contrary):
    """Return labels, and what is tied to them in all but a share of each class."""
    labels = rng.permutation(np.arange(ROWS) % 2)
    tied = labels.copy()
    for k in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == k))[: round(contrary * ROWS / 2)]
        tied[rows] = 1 - k
    return labels, tied


def digits(rng, labels, half):
    """Return a three or an eight of each label, somewhere near the middle, of shape `(n, 32, 32)` in 0..1."""
    pixels, digit = load_digits(return_X_y=True)
    pools = [np.flatnonzero(digit == k)[half::2] for k in (3, 8)]
    chosen = [pixels[rng.choice(pools[k])].reshape(8, 8) / 16 for k in labels]
    return np.stack([np.roll(np.kron(one, np.ones((4, 4))), rng.integers(-4, 5, 2), axis=(0, 1)) for one in chosen])


def tinted_digits(rng, labels, tied, half):
    """A three or an eight of one colour, warm or cool, on black."""
    colour = np.where(tied[:, None] == 0, WARM, COOL) + rng.normal(0, 0.06, (len(labels), 3))
    return np.clip(digits(rng, labels, half)[..., None] * colour[:, None, None], 0, 1)


def striped_digits(rng, labels, tied, half):
    """A three or an eight on plain or on striped ground."""
    phase, across = rng.random((len(labels), 1, 1)), np.arange(32)
    stripes = 0.25 + 0.2 * np.sin(2 * np.pi * (across / 8 + phase)) * (tied[:, None, None] == 0)
    ground = np.broadcast_to(stripes, (len(labels), 32, 32)) + rng.normal(0, 0.02, (len(labels), 32, 32))
    picture = np.maximum(digits(rng, labels, half), ground)
    return np.clip(picture, 0, 1)[..., None].repeat(3, axis=3)


def of_pictures(make, names, seed, contrary):
    """Return curated rows and findings of a linear probe on small pictures."""
    parts = []
    for half in (0, 1):
        rng = np.random.default_rng([seed, half])
        labels, tied = tied_labels(rng, contrary)
        pictures = make(rng, labels, tied, half)
        images = [PILImage.fromarray((255 * one).astype(np.uint8)) for one in pictures]
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        ds = Dataset.from_dict({"image": images, "label": labels}, features=features)
        small = pictures.reshape(ROWS, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(ROWS, -1).astype(np.float32)
        fine = np.abs(np.diff(pictures.mean(axis=3), axis=2)).mean(axis=(1, 2))[:, None].astype(np.float32)
        embedding = np.hstack([small, np.repeat(10 * fine, 20, axis=1)])
        parts.append(columns.with_columns(ds, {"embedding": (embedding, columns.vector(embedding.shape[1]))}))
    return analysed(parts, [hm.ImageProperties(), hm.Thumbnail()])


def of_texts(phrase, seed, contrary):
    """Return curated rows and findings of a linear probe on counts of words in made-up reviews."""
    parts = []
    for half in (0, 1):
        rng = np.random.default_rng([seed, half])
        labels, tied = tied_labels(rng, contrary)
        texts = []
        for k, t in zip(labels, tied, strict=True):
            own = [*rng.choice((BAD, GOOD)[k], 2), rng.choice((GOOD, BAD)[k])] if rng.random() < 0.9 else []
            words = [str(word) for word in rng.permutation([*rng.choice(FILL, 12), *own])]
            place = int(rng.integers(len(words)))
            texts.append(" ".join([*words[:place], phrase, *words[place:]] if t else words) + ".")
        features = Features({"text": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
        ds = Dataset.from_dict({"text": texts, "label": labels}, features=features)
        hashed = HashingVectorizer(n_features=512, ngram_range=(1, 2), norm=None, alternate_sign=False)
        embedding = hashed.transform(texts).toarray().astype(np.float32)
        parts.append(columns.with_columns(ds, {"embedding": (embedding, columns.vector(512))}))
    return analysed(parts, [hm.NGrams(), hm.TextStyle()])


def analysed(parts, sources):
    train, rows = parts
    logits = linear_probe(train)(columns.matrix(rows, "embedding")).numpy()
    rows = columns.with_columns(rows, {"logits": (logits, columns.vector(2))})
    rows = hm.annotate(hm.LogitBands().fit(rows).transform(rows), sources)
    findings = hm.associate(rows)
    return hm.curate(rows, findings), findings


COLOUR = {"warm colours", "cool colours"}
GROUND = {
    "busy picture",
    "plain picture",
    "busy border",
    "plain border",
    "high contrast",
    "low contrast",
    "sharp",
    "blurred",
}
TASKS = {
    "tinted digits": (lambda seed, share: of_pictures(tinted_digits, ["three", "eight"], seed, share), COLOUR),
    "striped digits": (lambda seed, share: of_pictures(striped_digits, ["three", "eight"], seed, share), GROUND),
    "phrase": (lambda seed, share: of_texts("on dvd", seed, share), {"on dvd"}),
    "function word": (lambda seed, share: of_texts("also", seed, share), {"also", 'the word "also"'}),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_true_tie_is_one_entry_first_and_rightly_named_in_nine_of_ten_seeds(task):
    make, names = TASKS[task]
    told = [hm.shortcuts(*make(seed, CONTRARY))["name"][:] for seed in SEEDS]
    assert sum(len({*found} & names) == 1 and found[0] in names for found in told) >= 9, told


@pytest.mark.parametrize("task", ["phrase", "function word"])
def test_nothing_is_told_of_untied_rows(task):
    make, _ = TASKS[task]
    told = [hm.shortcuts(*make(seed, 0.5))["name"][:] for seed in SEEDS]
    assert sum(map(bool, told)) <= 1, told
