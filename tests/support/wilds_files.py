"""Small published benchmarks in the layouts of the authors' archives."""

import csv
import json

import numpy as np
from PIL import Image


IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
SPLIT_SIZES = (240, 160, 80)


def tied(rng, sizes=SPLIT_SIZES, ties=(0.9, 0.9, 0.5)):
    """Splits, labels and attributes of two classes and two attributes."""
    split = np.repeat([0, 1, 2], sizes)
    label = rng.integers(0, 2, len(split))
    attribute = np.where(rng.random(len(split)) < np.array(ties)[split], label, 1 - label)
    return split, label, attribute


def picture(label, attribute, rng):
    pixels = rng.normal(90, 25, (16, 16, 3))
    pixels[:, :, 1 + attribute] += 80
    pixels[(slice(2, 14), slice(6, 10)) if label == 0 else (slice(6, 10), slice(2, 14))] += 70
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def waterbirds_files(folder, seed=0, sizes=SPLIT_SIZES):
    rng = np.random.default_rng(seed)
    split, label, place = tied(rng, sizes)
    names = [f"{i % 3:03d}.Bird/bird_{i}.png" for i in range(len(split))]
    for name, y, a in zip(names, label, place, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(y, a, rng).save(folder / name)
    rows = [(i + 1, *row, "/sea/x.jpg") for i, row in enumerate(zip(names, label, split, place, strict=True))]
    write_csv(folder / "metadata.csv", ("img_id", "img_filename", "y", "split", "place", "place_filename"), rows)
    return names, split, label, place


def celeba_files(folder, text=False, nested=False):
    """`text`: the authors' files; else Kaggle's."""
    rng = np.random.default_rng(1)
    split, blond, male = tied(rng, (12, 8, 8))
    names = [f"{i + 1:06d}.jpg" for i in range(len(split))]
    images = folder / "img_align_celeba" / ("img_align_celeba" if nested else "")
    images.mkdir(parents=True)
    for name, y, a in zip(names, blond, male, strict=True):
        picture(y, a, rng).save(images / name)
    titles = ["Arched_Eyebrows", "Blond_Hair", "Male", "Young"]
    rows = [(name, 1, 2 * y - 1, 2 * a - 1, -1) for name, y, a in zip(names, blond, male, strict=True)]
    if text:
        lines = [str(len(rows)), " ".join(titles) + " ", *("  ".join(map(str, row)) for row in rows)]
        (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
        parts = [f"{name} {code}" for name, code in zip(names, split, strict=True)]
        (folder / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    else:
        write_csv(folder / "list_attr_celeba.csv", ("image_id", *titles), rows)
        write_csv(folder / "list_eval_partition.csv", ("image_id", "partition"), zip(names, split, strict=True))
    return names, split, blond, male


RELATIONS = ("contradiction", "entailment", "neutral")


def multinli_files(folder):
    """Three files of sentences, one row in twelve without agreement, and the table that counts them all."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    rows, table = [], []
    for number in range(120):
        label, negated = int(rng.integers(3)), bool(rng.integers(2))
        gold = "-" if number % 12 == 5 else RELATIONS[label]
        second = f"He did {'Nothing, ' if negated else ''}{'no-nonsense ' if number % 7 == 0 else ''}work {number}."
        rows.append({"gold_label": gold, "sentence1": f"Premise {number}.", "sentence2": second, "genre": "x"})
        if gold != "-":
            table.append((number, label, int(negated), number % 3))
    order = rng.permutation(len(table))
    write_csv(
        folder / "metadata_random.csv",
        ("", "gold_label", "sentence2_has_negation", "split"),
        [table[i] for i in order],
    )
    parts = {"train": rows[:90], "dev_matched": rows[90:105], "dev_mismatched": rows[105:]}
    for name, part in parts.items():
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"multinli_1.0_{name}.jsonl").write_text(lines, encoding="utf-8")
    return rows, [table[i] for i in order]


def civilcomments_files(folder, sizes=SPLIT_SIZES, seed=3):
    """Comments with line breaks and quotes, shares of raters, and identities that overlap."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    split, toxic, mentioned = tied(rng, sizes)
    rows = []
    for number, (code, y, any_identity) in enumerate(zip(split, toxic, mentioned, strict=True)):
        shares = np.where(rng.random(8) < (0.4 if any_identity else 0.0), 0.75, 0.25)
        shares[rng.integers(8)] = 0.5 if any_identity else 0.0
        words = ["bad" if y else "good", *(["not"] if any_identity else []), *rng.choice(["film", "plot", "the"], 3)]
        text = " ".join(rng.permutation(words)) + ('\n"a, quote"' if number % 5 == 0 else "")
        name = ("train", "val", "test")[code]
        rows.append((number, text, name, 0.5 + 0.4 * rng.random() if y else 0.4 * rng.random(), *shares, 0.9))
    header = ("", "comment_text", "split", "toxicity", *IDENTITIES, "identity_any")
    write_csv(folder / "all_data_with_identities.csv", header, rows)
    return rows
