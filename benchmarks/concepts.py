"""Concept sources: do they put the true confounder on top, and what do they cost?

`rank` runs `associate` on classes tied to a confounder in 95 % of the rows, once per source, and prints over seeds the
rank of the first true name among the confirmed ones (odds ratio above 1, highest lower end of its interval first), and
how many true and false names are confirmed, and of those flagged as confounders. A name is true if, on an untied split
of other rows, it goes with the confounder that the unit's class is tied to (|phi| >= .1 within the class) more than
with the class. Results, and how they were measured: results/concepts.md.

    python benchmarks/concepts.py rank --tasks digits clothes reviews --data reviews=FOLDER

Clothes need Debian's package dataset-fashion-mnist (or `fashion=FOLDER`); an error says where the reviews come from.

`speed` prints processor times as ratios against decoding the same images, against scikit-learn's vectoriser alone, and
of clusters fitted on many rows against few; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import datasets
import numpy as np
from concept_tasks import RANK_TASKS, Data, tied_rows

import hf_midrange as hm
from hf_midrange import columns


SHOWN = 4
ALPHA = 0.05
LEAST = 0.1
"""Correlation with the confounder that makes a name true; with the 1,200 rows and more of an untied split z = 3.5."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("rank", "speed"), default="speed")
    parser.add_argument("--tasks", nargs="+", choices=RANK_TASKS, default=["digits"], help="to rank on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FOLDER", help="of fashion and reviews")
    parser.add_argument("--cache", type=Path, default=Path("outputs/concepts"), help="where features are kept")
    parser.add_argument(
        "--rows",
        type=int,
        default=800,
        help="of a curation split of dominoes; or images timed, and a tenth of the texts",
    )
    parser.add_argument("--repeats", type=int, default=5, help="timings are medians over so many alternating repeats")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    if options.what == "rank":
        data = {name: Path(folder) for name, _, folder in (text.partition("=") for text in options.data)}
        rank(options.tasks, options.seeds, options.rows, data, options.cache)
    else:
        speed(options.rows, options.repeats)


def rank(names: list[str], seeds: int, rows: int, data: Data, cache: Path) -> None:
    for name in names:
        lines: dict[str, list[Ranked]] = {}
        for seed in range(seeds):
            splits = tied_rows(name, seed, rows, data, cache)
            found = columns.concept_columns(splits["curation"].features)
            for shown in [[column] for column in found] + [found[:-1]]:  # the last is the confounder itself
                source = shown[0].removeprefix(columns.CONCEPTS_PREFIX) if len(shown) == 1 else "all but annotations"
                lines.setdefault(source, []).append(ranked(splits["curation"], splits["untied"], shown, seed))
        print(f"\n{name}, {len(splits['curation'])} rows, seeds 0-{seeds - 1}\n")
        print("| source | rank | true | false | flagged true | flagged false | first names, seed 0 |")
        print("|---|---|---|---|---|---|---|")
        for source, found in lines.items():
            counts = " | ".join(spread(found, j) for j in range(4))
            print(f"| {source} | {', '.join(line.rank for line in found)} | {counts} | {found[0].first} |", flush=True)


class Ranked(NamedTuple):
    """What one source finds in one draw."""

    counts: tuple[int, int, int, int]
    """Confirmed names that are true, and false; those of them flagged as confounders that are true, and false."""
    rank: str
    """Of the first true name among the confirmed ones, highest lower end of the interval first; "-" if none is."""
    first: str
    """The first names, false ones in italics."""


def spread(lines: list[Ranked], j: int) -> str:
    counts = [line.counts[j] for line in lines]
    return f"{np.mean(counts):.1f} ({min(counts)}-{max(counts)})"


def ranked(curation: datasets.Dataset, untied: datasets.Dataset, shown: list[str], seed: int) -> Ranked:
    """Associate the concept columns `shown` alone, and tell true names from false ones."""
    others = [name for name in columns.concept_columns(curation.features) if name not in shown]
    findings = hm.associate(curation.remove_columns(others), alpha=ALPHA, seed=seed).to_pandas()
    # For derived concepts, which are never called confirmed, the same criterion.
    again = (findings["q_confirm"] <= ALPHA) & (findings["odds_ratio_discovery"] > 1) & (findings["odds_ratio"] > 1)
    findings["flagged"] = findings["confounder"] | (findings["derived"] & (findings["reading"] == "cue"))
    key = ["source", "concept", "unit"]
    findings["flagged"] = findings[again].groupby(key)["flagged"].transform("any")
    found = findings[again].sort_values("ci_low", ascending=False).drop_duplicates(key)
    tied = {source: tied_units(untied, f"{columns.CONCEPTS_PREFIX}{source}") for source in found["source"].unique()}
    hit = np.array([tied[row.source].get(row.concept) == row.unit for row in found.itertuples()], dtype=bool)
    flagged = found["flagged"].to_numpy(dtype=bool)
    marked = [name if true else f"*{name}*" for name, true in zip(found["concept"], hit, strict=True)]
    rank = str(int(hit.argmax()) + 1) if hit.any() else "-"
    counts = (hit.sum(), (~hit).sum(), (hit & flagged).sum(), (~hit & flagged).sum())
    return Ranked(tuple(map(int, counts)), rank, "; ".join(marked[:SHOWN]))


def tied_units(untied: datasets.Dataset, column: str) -> dict[str, int]:
    """Return the concepts that tell the confounder, and the class whose confounder they go with.

    On rows without a tie: the correlation with the confounder, within the classes, is at least `LEAST`, and larger
    than the one with the class, within the values of the confounder.
    """
    table = columns.presence(untied, column).toarray()
    label, tied = columns.labels(untied), columns.labels(untied, "tied_to")
    with_tied, with_label = within(table, tied, label), within(table, label, tied)
    good = (np.abs(with_tied) >= LEAST) & (np.abs(with_tied) > np.abs(with_label))
    names = columns.vocabulary(untied.features, column)
    return {name: int(way > 0) for name, way, ok in zip(names, with_tied, good, strict=True) if ok}


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
            start = time.process_time()
            call()
            kept.append(time.process_time() - start)
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
