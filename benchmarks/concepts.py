"""Concept sources: do they put the true confounder on top, and what do they cost?

`python benchmarks/concepts.py rank` runs `associate` on digit dominoes (class = lower digit, confounder = upper digit,
5 % contrary rows) once per source and prints, over seeds, the rank of the first true name among the confirmed
confounders sorted by the lower end of the odds ratio's interval, and how many true and false names are confirmed. A
name is true if, on an untied split, it goes with the upper digit more than with the class (|phi| >= .2, within the
other factor). `python benchmarks/concepts.py speed` prints times as ratios against decoding the same images, against
scikit-learn's vectoriser alone, and of clusters fitted on many rows against few.
"""

from __future__ import annotations

import argparse
import io
import time
from statistics import median

import datasets
import numpy as np

import hf_midrange as hm
from hf_midrange import columns


SHOWN = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rank", "speed"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=800, help="rows of the curation split, or images and texts timed")
    parser.add_argument("--repeats", type=int, default=5, help="timings are medians over so many alternating repeats")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    if options.what == "rank":
        rank(options.seeds, options.rows)
    else:
        speed(options.rows, options.repeats)


def rank(seeds: int, rows: int) -> None:
    lines: dict[str, list[tuple[float, int, int, str]]] = {}
    for seed in range(seeds):
        curation, untied = domino_rows(seed, rows)
        for source in sources():
            fitted = source.fit(curation)
            lines.setdefault(fitted.name, []).append(ranked(curation, untied, fitted, seed))
    print(f"{'source':18} {'rank of first true name':24} {'true':>6} {'false':>6}  first names (seed 0)")
    for name, found in lines.items():
        ranks = " ".join("none" if np.isnan(line[0]) else f"{line[0]:.0f}" for line in found)
        true, false = (np.mean([line[j] for line in found]) for j in (1, 2))
        print(f"{name:18} {ranks:24} {true:6.1f} {false:6.1f}  {found[0][3]}")


def sources() -> list:
    return [hm.ImageProperties(), hm.Thumbnail(mode="L"), hm.LatentConcepts(), hm.Predictions(imagenet_lite0(), top=5)]


def imagenet_lite0():
    """Return EfficientNet-Lite0 with its ImageNet classifier, for images of 96 pixels."""
    import timm

    from hf_midrange.demo.lite0 import _pretrained

    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(_pretrained()))
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 96, 96), "crop_pct": 1.0}
    return model.eval()


def domino_rows(seed: int, rows: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Return a tied curation split and an untied one, extracted, with bands."""
    from hf_midrange.demo.domino_trial import linear_probe
    from hf_midrange.demo.dominoes import CLASSES, digits, dominoes
    from hf_midrange.demo.lite0 import lite0

    data = digits()
    model = lite0([str(c) for c in CLASSES])
    train = hm.extract(dominoes("train", 1200, 0.05, seed, data), model)
    model = linear_probe(train).merge_into(model)
    curation = hm.extract(dominoes("curation", rows, 0.05, seed, data), model)
    untied = hm.extract(dominoes("test", 600, 0.5, seed, data), model)
    bands = hm.LogitBands().fit(curation)
    return bands.transform(curation), bands.transform(untied)


def ranked(curation: datasets.Dataset, untied: datasets.Dataset, source: object, seed: int) -> tuple:
    """Return rank of the first true name, number of true and of false confirmed names, and the first names."""
    findings = hm.associate(hm.annotate(curation, [source]), seed=seed).to_pandas()
    wanted = findings["derived"] | (findings["confirmed"] & findings["confounder"])
    found = findings[wanted & (findings["odds_ratio"] > 1) & (findings["band"] == "mid")]
    names = found.sort_values("ci_low", ascending=False)["concept"].drop_duplicates().tolist()
    truth = true_names(hm.annotate(untied, [source]), f"concepts_{source.name}")
    hits = [name in truth for name in names]
    first = hits.index(True) + 1 if any(hits) else float("nan")
    return first, sum(hits), len(hits) - sum(hits), "; ".join(names[:SHOWN])


def true_names(untied: datasets.Dataset, column: str) -> set[str]:
    """Return the names that go with the upper digit, within the class, more than with the class within it."""
    table = columns.presence(untied, column).toarray()
    label = columns.labels(untied)
    upper = columns.labels(untied, columns.GROUP) % 2
    with_upper, with_label = within(table, upper, label), within(table, label, upper)
    good = (np.abs(with_upper) >= 0.2) & (np.abs(with_upper) > np.abs(with_label))
    return {name for name, ok in zip(columns.vocabulary(untied.features, column), good, strict=True) if ok}


def within(table: np.ndarray, factor: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Return the correlation of each column of `table` with `factor`, both centred within strata."""
    values, target = table.astype(float), factor.astype(float)
    for k in np.unique(strata):
        values[strata == k] -= values[strata == k].mean(axis=0)
        target[strata == k] -= target[strata == k].mean()
    scale = np.sqrt((values**2).sum(axis=0) * (target**2).sum())
    return np.divide(values.T @ target, scale, out=np.zeros(values.shape[1]), where=scale > 0)


def speed(rows: int, repeats: int) -> None:
    pictures = photographs(rows)

    def decode() -> None:
        """Decode every image in the same kind of pass; the difference is what annotating itself costs."""
        pictures.map(count, batched=True, batch_size=64, remove_columns=["image"], load_from_cache_file=False)

    for source in (hm.ImageProperties(), hm.Thumbnail()):
        base, ours = alternating(decode, lambda source=source: hm.annotate(pictures, [source]), repeats)
        print(
            f"{source.name}: {(ours - base) / base:.2f} x decoding, on top of it ({base / rows * 1e3:.2f} ms an image)"
        )
    texts = sentences(10 * rows)
    base, ours = alternating(lambda: vectorised(texts["text"][:]), lambda: hm.annotate(texts, [hm.NGrams()]), repeats)
    print(f"ngrams: {ours / base:.2f} x scikit-learn's fit and transform ({base / len(texts) * 1e6:.0f} us a text)")
    few, many = embeddings(10_000), embeddings(40_000)
    small, large = alternating(
        lambda: hm.LatentConcepts(k=8).fit(few), lambda: hm.LatentConcepts(k=8).fit(many), repeats
    )
    print(f"latent: fitting on 40,000 rows takes {large / small:.2f} x fitting on 10,000 ({small:.2f} s)")


def alternating(base, ours, repeats: int) -> tuple[float, float]:
    times = ([], [])
    for _ in range(repeats):
        for call, kept in zip((base, ours), times, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


def count(batch: dict) -> dict:
    return {"width": [image.width for image in batch["image"]]}


def photographs(rows: int) -> datasets.Dataset:
    """Return JPEG crops of real photographs, 375 x 500 pixels as ImageNet's are."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    encoded = []
    for k in range(rows):
        picture = originals[k % len(originals)]
        left, top = int(rng.integers(0, picture.width - 500)), int(rng.integers(0, picture.height - 375))
        file = io.BytesIO()
        picture.crop((left, top, left + 500, top + 375)).save(file, "JPEG", quality=90)
        encoded.append({"bytes": file.getvalue(), "path": None})
    return datasets.Dataset.from_dict({"image": encoded}, features=datasets.Features({"image": datasets.Image()}))


def sentences(rows: int) -> datasets.Dataset:
    """Return texts of 20 words from a vocabulary with Zipf's frequencies."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{k}" for k in range(20_000)])
    drawn = words[np.minimum(rng.zipf(1.3, (rows, 20)), len(words)) - 1]
    return datasets.Dataset.from_dict({"text": [" ".join(row) for row in drawn]})


def vectorised(texts: list[str]) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(binary=True, ngram_range=(1, 2), min_df=10, max_df=0.9, max_features=2000)
    vectorizer.fit(texts)
    vectorizer.transform(texts)


def embeddings(rows: int) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    features = {
        "embedding": (rng.normal(size=(rows, 64)).astype(np.float32), columns.vector(64)),
        "band": (rng.integers(0, 3, (rows, 2)).astype(np.int8), columns.vector(2, "int8")),
        "label": (rng.integers(0, 2, rows), datasets.ClassLabel(names=["a", "b"])),
    }
    ds = datasets.Dataset.from_dict({"row": np.arange(rows)})
    return columns.with_columns(ds, features)


if __name__ == "__main__":
    main()
