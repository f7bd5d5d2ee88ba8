"""What texts are about: counts made by hand, words in every form, and how the texts of a pair relate."""

import numpy as np
import pytest
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.concepts import TextTopics, annotate
from hf_midrange.concepts.text_views import PATTERNS, bases
from hf_midrange.concepts.vocabularies import table


def counts(text):
    """Return what is found in a text: entry -> count."""
    source = TextTopics()
    values = np.expm1(source.measure({"text": [text]})[0])
    return {name: round(float(value)) for name, value in zip(source.vocabulary, values, strict=True) if value > 0}


@pytest.mark.parametrize(
    ("text", "entry", "count"),
    [
        ("The bread and two sandwiches were eaten.", "food", 2),
        ("My wife, her grandson and their aunts", "family", 3),
        ("He said that she asked", "saying and asking", 2),
        ("They went to Paris and Lisbon in France.", "cities", 2),
        ("They went to Paris and Lisbon in France.", "countries", 1),
        ("I can’t and won't, never.", "negation", 3),
        ("Could you please help? Thanks!", "politeness", 2),
        ("A Muslim, two Jews and a gay man", "Muslims", 1),
        ("A Muslim, two Jews and a gay man", "Jews", 1),
        ("A Muslim, two Jews and a gay man", "gay, lesbian and transgender people", 1),
        ("She met Anna, then Bob.", "names (capitals inside a sentence)", 2),
        ("In 1999 it cost $5 or 20 dollars", "years", 1),
        ("In 1999 it cost $5 or 20 dollars", "sums of money", 2),
        ("see www.example.org or me@example.org", "web or e-mail addresses", 2),
    ],
)
def test_entries_count_what_they_name(text, entry, count):
    assert counts(text)[entry] == count


def test_a_text_without_words_is_all_zero():
    assert counts("") == counts("   !!") == {}


def test_words_are_found_in_every_form():
    for form, base in (
        ("stories", "story"),
        ("boxes", "box"),
        ("making", "make"),
        ("running", "run"),
        ("used", "use"),
    ):
        assert base in bases(form)
    assert {"children", "men"} <= set(" ".join([table("word_topics")["people"], table("word_lists")["men"]]).split())


def test_every_list_has_lower_case_words_and_a_name_of_its_own():
    names = [*table("word_topics"), *table("word_lists"), *PATTERNS]
    assert len(names) == len(set(names)) == len(TextTopics().vocabulary)
    for words in [*table("word_topics").values(), *table("word_lists").values()]:
        assert words == words.lower()
        assert len(set(words.split())) == len(words.split())


def test_the_relation_of_two_texts():
    source = TextTopics(["text", "text_pair"])
    view = source.measure({"text": ["A dog sleeps", "a b"], "text_pair": ["The dog is not awake", "a b"]})
    first, same = (dict(zip(source.vocabulary, row, strict=True)) for row in view)
    assert first["words of the second text that the first has too"] == pytest.approx(1 / 5)
    assert first["words of the first text that the second has too"] == pytest.approx(1 / 3)
    assert first["second text longer than the first"] == pytest.approx(np.log(6 / 4))
    assert first["negation in the second text only"] == 1
    assert first["negation in the first text only"] == 0
    assert same["words of the second text that the first has too"] == 1


def test_topics_are_views_with_a_reading(tmp_path):
    texts = ["the bread was good", "he said no", "a dog", "wine and bread", "nothing here"] * 4
    ds = Dataset.from_dict({"text": texts})
    out = annotate(ds, [TextTopics()], output_dir=tmp_path)
    names = columns.vocabulary(out.features, "concepts_text_topics")
    present = columns.presence(out, "concepts_text_topics").toarray()
    assert present[:, names.index("food")].tolist() == [word in (0, 3) for word in range(5)] * 4
    assert columns.matrix(out, "view_text_topics").shape == (20, len(names))
    assert columns.facts(out.features, "view_text_topics") == {"of_network": False, "vocabulary": True}
    fitted = TextTopics.load(tmp_path / "text_topics.json")
    assert annotate(ds, [fitted])["concepts_text_topics"][:] == out["concepts_text_topics"][:]
