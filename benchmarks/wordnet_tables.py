"""Make the tables in hf_midrange/concepts/tables/ from WordNet 3.0 (Debian's package wordnet-base) and timm.

    python benchmarks/wordnet_tables.py [--wordnet /usr/share/wordnet]

`imagenet_kinds.tsv`: for each kind of thing that at least 3 and at most 600 of ImageNet's 1,000 classes are, its name
and the ids of these classes. An ImageNet class is a synset of WordNet, whose hypernyms say what it is a kind of. Of
synsets with the same classes the most special one names them.

`word_topics.tsv`: for each of WordNet's files of nouns and verbs, called supersenses, and for some kinds of things
below them, the words that mostly mean something of it. A word is taken if it was counted in the tagged texts that come
with WordNet, or is used in at least five of WordNet's own definitions and examples. It belongs to a topic that has two
thirds of its counted senses, or of its senses if none was counted. Irregular forms ("children", "said") come with it.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from timm.data import ImageNetInfo

from hf_midrange.concepts.text_views import bases


TABLES = Path(__file__).parents[1] / "hf_midrange" / "concepts" / "tables"
FEWEST, MOST = 3, 600
SUPERSENSES = {
    4: "acts", 5: "animals", 6: "man-made things", 7: "qualities", 8: "the body", 9: "knowledge and thought",
    10: "communication", 11: "events", 12: "feelings", 13: "food", 14: "groups of people or things", 15: "places",
    17: "natural things", 18: "people", 19: "natural phenomena", 20: "plants", 21: "money and possession",
    22: "processes", 23: "amounts", 24: "relations", 25: "shapes", 26: "states and illness", 27: "substances",
    28: "time", 29: "dressing and bodily care", 30: "changing", 31: "thinking", 32: "saying and asking",
    33: "fighting and competing", 34: "eating and drinking", 35: "touching and hitting", 36: "making",
    37: "feeling", 38: "moving", 39: "seeing and hearing", 40: "buying and owning", 41: "social and political acts",
}  # fmt: skip
"""Number of one of WordNet's lexicographer files -> what it is called here; those left out say too little."""
KINDS = {
    "vehicles": "vehicle", "clothes": "clothing", "buildings": "building", "furniture": "furniture",
    "weapons": "weapon", "musical instruments": "musical_instrument", "machines and devices": "device",
    "drinks": "beverage", "fruit and vegetables": "produce", "meat and fish": "meat", "illness": "illness",
    "medicines": "medicine:2", "family": "relative", "children": "child", "workers and jobs": "worker",
    "experts and professions": "professional", "leaders": "leader", "sports and games": "game:3", "sport": "sport",
    "music": "music", "films and shows": "show:3", "books and writing": "writing:2", "religion": "religion",
    "war and military": "military_action", "crime": "crime", "school and study": "educational_institution",
    "government": "government", "business": "business", "money": "money", "law": "law:2", "computers": "computer",
    "dogs": "dog", "birds": "bird", "trees": "tree", "water": "body_of_water", "land": "land:4", "cities": "city",
    "countries": "country:2", "weather": "weather", "seasons and dates": "calendar_month", "days": "day_of_the_week",
    "colours": "chromatic_color", "parts of the body": "body_part", "emotions": "emotion", "failure": "failure",
    "relatives of death": "death",
}  # fmt: skip
"""Topic -> the noun, with the number of its meaning if not the first, below which its words lie in WordNet."""
SHARE = 2 / 3
USED = 5
OWN_COUNT = 5
"""An irregular form that is a word of its own, such as "left", is left out if it was counted so often as that word."""
FEWEST_WORDS = 8
"""Words that a topic must have."""


class Synset(NamedTuple):
    """One meaning."""

    words: list[str]
    above: list[str]
    """Its hypernyms, and what it is an instance of."""
    file: int
    gloss: str


def main() -> None:
    """Make both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    folder = parser.parse_args().wordnet
    nouns, verbs = (dict(synsets(folder / f"data.{kind}")) for kind in ("noun", "verb"))
    write("imagenet_kinds.tsv", kinds(nouns))
    write("word_topics.tsv", topics(folder, nouns, verbs))


def synsets(path: Path) -> Iterator[tuple[str, Synset]]:
    """Yield the synsets of a data file by their numbers; the form is that of WordNet's manual page wndb."""
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("  "):
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        count = int(fields[3], 16)
        words = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
        first = 4 + 2 * count
        pointers = [fields[first + 1 + 4 * k : first + 5 + 4 * k] for k in range(int(fields[first]))]
        above = [to for symbol, to, kind, _ in pointers if symbol in ("@", "@i") and kind == "n"]
        yield fields[0], Synset(words, above, int(fields[1]), gloss)


def kinds(nouns: dict[str, Synset]) -> dict[str, str]:
    """Return the classes of each kind of thing, as ranges of ids."""
    classes = defaultdict(set)
    for number, synset in enumerate(ImageNetInfo("imagenet-1k").label_names()):
        for above in ancestors(nouns, synset[1:]):
            classes[above].add(number)
    named: dict[frozenset[int], str] = {}
    for synset, members in classes.items():
        key = frozenset(members)
        if FEWEST <= len(key) <= MOST:
            rivals = [synset, named.get(key, synset)]
            named[key] = max(rivals, key=lambda rival: (depth(nouns, rival), rival))
    names = Counter(nouns[synset].words[0] for synset in named.values())
    found = {}
    for members, synset in sorted(named.items(), key=lambda item: (-len(item[0]), item[1])):
        name = nouns[synset].words[0]
        if names[name] > 1:
            name = f"{name} ({nouns[nouns[synset].above[0]].words[0]})"
        if name in found:
            raise ValueError(f"two kinds are called {name!r}")
        found[name] = ranges(sorted(members))
    return found


def ancestors(nouns: dict[str, Synset], synset: str) -> set[str]:
    """Return a synset and all that it is a kind of."""
    return {synset}.union(*(ancestors(nouns, above) for above in nouns[synset].above))


def depth(nouns: dict[str, Synset], synset: str) -> int:
    """Return the shortest way up to the most general synset."""
    return 1 + min((depth(nouns, above) for above in nouns[synset].above), default=-1)


def ranges(numbers: list[int]) -> str:
    """Return whole numbers in order as text, such as "3-5,9"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def topics(folder: Path, nouns: dict[str, Synset], verbs: dict[str, Synset]) -> dict[str, str]:
    """Return the words of each topic."""
    roots = {topic: root(folder, noun) for topic, noun in KINDS.items()}
    senses, used = counted_senses(folder), words_used(folder)
    words = defaultdict(list)
    for word in sorted(senses):
        weights = Counter()
        for (kind, synset), count in senses[word].items():
            for topic in topics_of(kind, synset, nouns, verbs, roots):
                weights[topic] += count
        total = senses[word].total()
        if max(senses[word].values()) >= 1 or used[word] >= USED:
            for topic, count in weights.items():
                if count >= SHARE * total:
                    words[topic].append(word)
    irregular = irregular_forms(folder)
    for found in words.values():
        forms = {form for word in found for form in irregular[word]} - {*found}
        found += sorted(form for form in forms if form not in senses or senses[form].total() < OWN_COUNT)
    order = [*SUPERSENSES.values(), *KINDS]
    return {topic: " ".join(words[topic]) for topic in order if len(words[topic]) >= FEWEST_WORDS}


def root(folder: Path, noun: str) -> str:
    """Return the synset of a noun, such as "game:3" for its third meaning."""
    name, _, number = noun.partition(":")
    for line in (folder / "index.noun").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name} "):
            return offsets(line)[int(number or 1) - 1]
    raise KeyError(noun)


def offsets(line: str) -> list[str]:
    """Return the synsets of a line of an index file, most frequent first."""
    fields = line.split()
    return fields[-int(fields[2]) :]


def counted_senses(folder: Path) -> dict[str, Counter[tuple[str, str]]]:
    """Return how often each sense of each word was counted; a word that never was has a small weight for each."""
    counts = {}
    for line in (folder / "cntlist.rev").read_text(encoding="ascii").splitlines():
        key, number, count = line.split()
        word, _, sense = key.partition("%")
        counts[word, sense[0].replace("5", "3"), int(number)] = int(count)
    found = defaultdict(Counter)
    for digit, kind in enumerate(("noun", "verb", "adj", "adv"), start=1):
        for line in (folder / f"index.{kind}").read_text(encoding="ascii").splitlines():
            word = line.split(" ", 1)[0]
            if re.fullmatch(r"[a-z]{3,}", word) and not word.endswith(("idae", "aceae")):
                for number, synset in enumerate(offsets(line), start=1):
                    found[word][kind, synset] = counts.get((word, str(digit), number), 1e-3)
    return found


def irregular_forms(folder: Path) -> dict[str, list[str]]:
    """Return the inflected forms of words that no rule leads back to them."""
    found = defaultdict(list)
    for kind in ("noun", "verb"):
        for line in (folder / f"{kind}.exc").read_text(encoding="ascii").splitlines():
            form, *words = line.split()
            for word in words:
                if form.isalpha() and word not in bases(form):
                    found[word].append(form)
    return found


def words_used(folder: Path) -> Counter[str]:
    """Return in how many definitions and examples each word is used."""
    return Counter(
        word
        for kind in ("noun", "verb", "adj", "adv")
        for _, synset in synsets(folder / f"data.{kind}")
        for word in set(re.findall(r"[a-z]+", synset.gloss.lower()))
    )


def topics_of(
    kind: str, synset: str, nouns: dict[str, Synset], verbs: dict[str, Synset], roots: dict[str, str]
) -> list[str]:
    """Return the topics of one meaning."""
    if kind == "noun":
        above = ancestors(nouns, synset)
        found = [topic for topic, top in roots.items() if top in above]
        return [*found, SUPERSENSES.get(nouns[synset].file, "")]
    return [SUPERSENSES.get(verbs[synset].file, "")] if kind == "verb" else []


def write(name: str, table: dict[str, str]) -> None:
    """Write one line an entry: its name, a tab, and what it holds."""
    (TABLES / name).write_text("".join(f"{key}\t{value}\n" for key, value in table.items()))
    print(f"{name}: {len(table)} entries, {(TABLES / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
