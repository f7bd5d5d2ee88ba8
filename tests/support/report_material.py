"""Small data sets for reports: classes tied to a concept, as images and as texts, and hostile ones."""

from __future__ import annotations

import io

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from support.associations import simulated

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.bands import LogitBands


HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'><svg onload=document.title='owned'>",
    "</style></title><style>*{display:none}</style>",
    "\u202egnp.exe\u202c\u200f",
    "{{ 7 * 7 }}{% raw %}",
    "<a href=javascript:alert(1)>x</a>&lt;b&gt;",
    "http://example.com/x.png\n<iframe src=//example.com>",
]
TIED = "film"


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def features_of(ds: Dataset, seed: int = 0) -> Dataset:
    """Return `ds` with groups, an embedding that carries logits and the tied concept, and a view of the concept."""
    rng, n = np.random.default_rng(seed), len(ds)
    ids, tied = columns.labels(ds), columns.presence(ds, "concepts_tags").toarray()[:, -1]
    names = columns.class_label(ds.features).names
    embedding = np.column_stack([columns.matrix(ds, "logits"), tied, rng.normal(size=(n, 4))]).astype(np.float32)
    view = np.column_stack([tied + rng.normal(0, 0.1, n), rng.normal(size=n)]).astype(np.float32)
    groups = [f"{name}, {with_it} it" for name in names for with_it in ("without", "with")]
    return columns.with_columns(
        ds,
        {
            "embedding": (embedding, columns.vector(embedding.shape[1])),
            "group": (ids * 2 + tied, ClassLabel(names=groups)),
            "view_colour": (view, columns.vector(2)),
        },
    )


def images(n: int = 600, seed: int = 0, names: list[str] | None = None) -> Dataset:
    """Return banded rows whose image is blue where the tied concept is, green elsewhere; `names` are file names."""
    ds = features_of(simulated(n, noise_concepts=12, seed=seed), seed)
    rng = np.random.default_rng(seed)
    tied = columns.presence(ds, "concepts_tags").toarray()[:, -1]
    pictures = rng.integers(60, 120, (n, 24, 24, 3)).astype(np.uint8)
    pictures[np.arange(n), :, :, np.where(tied, 2, 1)] += 100
    stored = [
        {"bytes": encoded(picture), "path": names[i % len(names)] if names else f"folder/picture_{i}.png"}
        for i, picture in enumerate(pictures)
    ]
    ds = columns.with_columns(ds, {"image": (stored, ImageFeature())})
    return LogitBands().fit(ds).transform(ds)


def texts(n: int = 600, seed: int = 0) -> Dataset:
    """Return banded rows whose text has the word "film" where the tied concept is."""
    ds = features_of(simulated(n, noise_concepts=1, seed=seed), seed)
    tied = columns.presence(ds, "concepts_tags").toarray()[:, -1]
    rng = np.random.default_rng(seed)
    fill = ["it", "was", "not", "so", "good", "don't", "ever", "plot", "bad", "long"]
    rows = []
    for has in tied:
        words = list(rng.choice(fill, 9))
        if has:
            words.insert(int(rng.integers(9)), "Film")
        rows.append(" ".join(words) + ".")
    ds = columns.with_columns(ds.remove_columns("concepts_tags"), {"text": (rows, Value("string"))})
    ds = hm.annotate(ds, [hm.NGrams("text", min_rows=20)])
    return LogitBands().fit(ds).transform(ds)


def hostile(n: int = 400) -> Dataset:
    """Return `images` in which labels, concepts, groups, texts and file names are attacks."""
    ds = images(n, names=[f"folder/{name.replace('/', '')}.png" for name in HOSTILE])
    present = columns.presence(ds, "concepts_tags")
    words = [f"{name} {i}" for i, name in enumerate(HOSTILE + HOSTILE)][: present.shape[1]]
    classes, groups = HOSTILE[:3], (HOSTILE * 2)[: ds.features["group"].num_classes]
    numbered = ClassLabel(names=[f"{name} {i}" for i, name in enumerate(groups)])
    written = [f"{HOSTILE[i % len(HOSTILE)]} {words[-1]}" for i in range(n)]
    return columns.with_columns(
        ds,
        {
            "label": (columns.labels(ds), ClassLabel(names=classes)),
            "group": (columns.labels(ds, "group"), numbered),
            "text": (written, Value("string")),
            "concepts_tags": (columns.concept_arrow(present, words), columns.concept_list(words)),
        },
    )


def head_of(ds: Dataset) -> hm.LinearHead:
    """Return the head whose logits are those of `features_of`."""
    classes = columns.class_label(ds.features).num_classes
    return hm.LinearHead.from_weights(np.eye(classes, columns.matrix(ds, "embedding").shape[1]), np.zeros(classes))


def long_named(letters: int, n: int = 300) -> Dataset:
    """Return rows as of `images`, whose classes and concepts have long names, alike but in the middle."""
    ds = images(n)

    def long(names: list[str]) -> list[str]:
        return ["x" * (letters // 2) + name + "x" * (letters // 2) for name in names]

    tags, label = columns.presence(ds, "concepts_tags"), columns.class_label(ds.features)
    words = long(columns.vocabulary(ds.features, "concepts_tags"))
    made = {
        "concepts_tags": (columns.concept_arrow(tags, words), columns.concept_list(words)),
        "label": (columns.labels(ds), ClassLabel(names=long(label.names))),
    }
    return columns.with_columns(ds, made)


def crowded(n: int = 10_000, concepts: int = 110, classes: int = 4) -> Dataset:
    """Return rows with noise for images and so many concepts that go with a logit, each on rows of its own."""
    rng = np.random.default_rng(0)
    ids = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), ids] += 3
    drive = logits[:, np.arange(concepts) % classes]
    present = rng.random((n, concepts)) < 1 / (1 + np.exp(2 - drive))
    noise = [encoded(rng.integers(0, 256, (96, 96, 3)).astype(np.uint8), "JPEG") for _ in range(100)]
    names = [f"a concept with a rather long name, number {j}" for j in range(concepts)]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=list("abcd"))}))
    stored = [{"bytes": noise[i % 100], "path": f"a_file_name_of_some_length_{i}.jpg"} for i in range(n)]
    return columns.with_columns(
        ds,
        {
            "image": (stored, ImageFeature()),
            "logits": (logits, columns.vector(classes)),
            "concepts_tags": (columns.concept_arrow(present, names), columns.concept_list(names)),
        },
    )
