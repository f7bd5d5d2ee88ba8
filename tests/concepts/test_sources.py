"""What each model-free source says, against counts and pictures made by hand."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as pillow
from PIL import ImageFilter

from hf_midrange import columns
from hf_midrange.concepts import Annotations, ImageProperties, NGrams, TextStyle, Thumbnail, annotate
from hf_midrange.concepts.ngrams import _vectorizer, phrase_table
from hf_midrange.concepts.pictures import otsu_threshold
from hf_midrange.concepts.source import halving_thresholds
from hf_midrange.extraction.images import rgb


def images(pictures):
    return Dataset.from_dict({"image": list(pictures)}, features=Features({"image": Image()}))


def names_per_row(ds, source):
    out = annotate(ds, [source])
    words = columns.vocabulary(out.features, source.concept_column)
    return [{words[j] for j in row} for row in out[source.concept_column]]


@given(arrays(np.float32, st.integers(2, 40), elements=st.floats(-5, 5, width=16)))
def test_the_halving_threshold_beats_every_other_cut(values):
    cut = halving_thresholds(values[:, None])[0]
    halves = [abs((values > edge).sum() - len(values) / 2) for edge in np.unique(values)[:-1]]
    reached = abs((values > cut).sum() - len(values) / 2)
    assert reached == min(halves, default=len(values) / 2)


@given(arrays(np.float32, st.integers(2, 40), elements=st.floats(-5, 5, width=16)))
def test_otsu_agrees_with_brute_force(values):
    cut = otsu_threshold(values)
    found = {}
    for edge in np.unique(values)[:-1]:
        low, high = values[values <= edge].astype(float), values[values > edge].astype(float)
        if min(len(low), len(high)) >= 0.1 * len(values) - 1e-9:
            found[float(edge)] = len(low) * len(high) * (high.mean() - low.mean()) ** 2
    if not found:
        assert np.isinf(cut)
        return
    edge = max(float(v) for v in values if v <= cut)
    assert found[edge] == pytest.approx(max(found.values()), rel=1e-6, abs=1e-9)


def test_thumbnail_is_the_mean_of_each_box():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    view = Thumbnail().measure({"image": [pillow.fromarray(pixels)]})[0].reshape(4, 4, 3)
    expected = pixels.reshape(4, 4, 4, 6, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(view, expected, atol=1.01 / 255)


def test_thumbnail_entries_are_named_where_they_lie():
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:2, 6:, 2] = 255
    source = Thumbnail()
    view = source.measure({"image": [pillow.fromarray(pixels)]})[0]
    assert [source.vocabulary[j] for j in np.flatnonzero(view)] == ["blue, top right"]
    assert len(source.vocabulary) == len(set(source.vocabulary)) == 48


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_every_image_mode_is_read(mode):
    picture = pillow.new(mode, (5, 6))
    assert rgb(picture).mode == "RGB"
    assert Thumbnail().measure({"image": [picture]}).shape == (1, 48)


def test_alpha_is_dropped_and_deep_greys_are_scaled():
    assert rgb(pillow.new("RGBA", (2, 2), (10, 20, 30, 0))).getpixel((0, 0)) == (10, 20, 30)
    deep = pillow.fromarray(np.full((2, 2), 257 * 100, dtype=np.uint16))
    assert rgb(deep).getpixel((0, 0)) == (100, 100, 100)
    assert rgb(pillow.fromarray(np.full((2, 2), 1.0, dtype=np.float32))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("settings", [{"mode": "HSV"}, {"size": 0}, {"size": 10**9}, {"size": 2.5}])
def test_a_thumbnail_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=str(*settings.values())):
        Thumbnail(**settings)


def test_pictures_all_alike_are_refused():
    same = images([pillow.new("RGB", (4, 4), "red")] * 3)
    for source in (Thumbnail(), ImageProperties()):
        with pytest.raises(ValueError, match="no concept that some rows have and others lack"):
            annotate(same, [source])


def square(colour, ground, box, size=(64, 64)):
    picture = pillow.new("RGB", size, ground)
    picture.paste(colour, box)
    return picture


def test_image_properties_say_what_a_person_would():
    middle = (16, 16, 48, 48)
    rows = names_per_row(
        images(
            [square("black", "white", middle)] * 3
            + [square("white", "black", middle)] * 3
            + [square("yellow", "blue", (8, 20, 20, 28), (64, 48))] * 3
            + [square("red", "green", (40, 30, 64, 64), (32 * 6, 64))] * 3
        ),
        ImageProperties(),
    )
    assert {"dark centre", "black centre", "white border", "greyscale", "left and right mirror each other"} <= rows[0]
    assert {"bright centre", "white centre", "black border", "dark border"} <= rows[3]
    assert {"vivid colours", "blue border"} <= rows[6]
    assert {"green border", "wide image"} <= rows[9]
    assert "greyscale" not in rows[6] | rows[9]


def test_where_the_main_mass_lies_is_named():
    left, right = square("red", "white", (4, 4, 20, 20)), square("red", "white", (44, 44, 60, 60))
    rows = names_per_row(images([left, right]), ImageProperties())
    assert {"main mass to the left", "main mass high up"} <= rows[0]
    assert {"main mass to the right", "main mass low down"} <= rows[1]


def test_blurred_and_sharp_are_told_apart():
    noise = [pillow.effect_noise((90, 90), 60).convert("RGB") for _ in range(4)]
    blurred = [picture.filter(ImageFilter.GaussianBlur(2)) for picture in noise]
    rows = names_per_row(images([*noise, *blurred]), ImageProperties())
    assert all("sharp" in row for row in rows[:4])
    assert all("blurred" in row for row in rows[4:])


@pytest.mark.parametrize(
    ("colour", "name"),
    [("red", "red"), ("lime", "green"), ("blue", "blue"), ("yellow", "yellow"), ("#8b4513", "brown"), ("gray", "grey"),
     ("cyan", "turquoise"), ("orange", "orange"), ("hotpink", "pink"), ("#6a0dad", "purple"), ("black", "black"),
     ("white", "white")],
)  # fmt: skip
def test_colours_have_their_everyday_names(colour, name):
    other = "blue" if name != "blue" else "red"
    rows = names_per_row(
        images([pillow.new("RGB", (8, 8), colour), pillow.new("RGB", (8, 8), other)]), ImageProperties()
    )
    assert f"{name} border" in rows[0]


def test_ngrams_are_those_a_count_by_hand_finds():
    texts = ["not good", "not bad", "good film", "don't go", "don't stay", "film"]
    ds = Dataset.from_dict({"text": texts})
    rows = names_per_row(ds, NGrams(min_rows=2, max_share=0.5))
    assert rows == [{"not", "good"}, {"not"}, {"good", "film"}, {"don't"}, {"don't"}, {"film"}]


def test_ngrams_keep_phrases_limits_and_sides_apart():
    rows = {"text": ["a dog", "a dog", "cat"], "text_pair": ["cat", "a dog", "a dog"]}
    ds = Dataset.from_dict(rows)
    fitted = NGrams(["text", "text_pair"], min_rows=2).fit(ds)
    assert fitted.vocabulary == tuple(f"{word} ({side})" for side in rows for word in ("a", "a dog", "dog"))
    assert NGrams(min_rows=2, max_phrases=1).fit(ds).vocabulary == ("a",)
    assert NGrams(min_rows=1, longest=1).fit(ds).vocabulary == ("a", "cat", "dog")


def test_class_names_and_their_synonyms_are_excluded_on_request():
    rows = {"text": ["sea bird here", "gull here now", "a sea bird", "a gull here"], "label": [0, 1, 0, 1]}
    ds = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["sea_bird", "gull"]))
    words = NGrams(min_rows=1, exclude=["now"], exclude_class_names=True, max_share=1.0).fit(ds).vocabulary
    assert words == ("a", "here")


@given(st.lists(st.text("aB'’ .\u0301ñ1_", max_size=24), min_size=1, max_size=6), st.integers(1, 3))
def test_phrases_are_found_as_scikit_learn_finds_them(texts, longest):
    engine = _vectorizer(ngram_range=(1, longest))
    try:
        expected = engine.fit_transform(texts)
    except ValueError:
        return
    phrases = engine.get_feature_names_out().tolist()
    for chosen in (phrases, phrases[::2]):
        wanted = expected[:, [phrases.index(phrase) for phrase in chosen]].toarray() > 0
        np.testing.assert_array_equal(phrase_table(texts, chosen).toarray(), wanted)


@pytest.mark.parametrize(
    "settings",
    [{"min_rows": 0}, {"longest": 0}, {"longest": 10**9}, {"max_share": 0}, {"max_phrases": 0},
     {"max_phrases": 10**12}, {"column": []}],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="are needed, not|n-grams need a column"):
        NGrams(**settings)


def test_no_phrase_at_all_is_an_error():
    ds = Dataset.from_dict({"text": ["a", "b", "!"]})
    for source in (NGrams(min_rows=2), NGrams(min_rows=1, exclude=["a", "b"])):
        with pytest.raises(ValueError, match="found no phrase"):
            annotate(ds, [source])


def test_annotations_name_values_and_bins():
    rows = {"night": [True, None, False, False], "place": ["b", "a", None, "a"], "stars": [1, 2, 2, None]}
    rows["age"] = [1.5, 2.5, 3.5, float("nan")]
    got = names_per_row(Dataset.from_dict(rows), Annotations(["night", "place", "stars", "age"], bins=3))
    assert got[0] == {"night", "place=b", "stars=1", "age <= 1.5"}
    assert got[1] == {"place=a", "stars=2", "1.5 < age <= 2.5"}
    assert got[2] == {"stars=2", "age > 2.5"}
    assert got[3] == {"place=a"}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50).filter(lambda v: len(set(v)) > 1))
def test_every_number_falls_in_exactly_one_bin(values):
    from hf_midrange.concepts.metadata import _bins, _codes, _names

    known = _bins(np.array(values), 4)
    names = _names("x", known)
    assert all(code in range(len(names)) for code in _codes(known, values))


def test_annotations_refuse_what_they_cannot_use():
    rows = {"same": [1, 1], "id": ["a", "b"], "vector": [[1.0], [2.0]]}
    ds = Dataset.from_dict(rows)
    with pytest.raises(ValueError, match="'same' has one value only"):
        annotate(ds, [Annotations(["same"])])
    with pytest.raises(ValueError, match="'id' has 2 values, more than `max_values`=1"):
        annotate(ds, [Annotations(["id"], max_values=1)])
    with pytest.raises(TypeError, match="'vector' is"):
        annotate(ds, [Annotations(["vector"])])
    with pytest.raises(KeyError, match="'missing'"):
        annotate(ds, [Annotations(["missing"])])
    with pytest.raises(TypeError, match=r"Annotations\(\['same'\]\)"):
        Annotations("same")


def test_text_style_counts_what_it_names():
    source = TextStyle()
    text = "Oh NO! It's not 42% of the, the way..."
    view = dict(zip(source.vocabulary, source.measure({"text": [text]})[0], strict=True))
    counted = {'the word "the"': 2, 'the word "not"': 1, 'the word "of"': 1, "exclamation mark": 1, "comma": 1,
               "full stop": 3, "percent sign": 1, "apostrophe": 1, "many words": 9, "short forms": 1}  # fmt: skip
    for name, count in counted.items():
        assert view[name] == pytest.approx(np.log1p(count), abs=1e-6), name
    assert view["digits"] == pytest.approx(2 / len(text))
    assert view["words in capitals"] == pytest.approx(1 / 9)
    assert view["capital letters"] == pytest.approx(4 / sum(map(str.isalpha, text)))
    assert len(set(source.vocabulary)) == len(source.vocabulary)


def test_text_style_of_an_empty_text_is_all_zero_and_pairs_say_which_side():
    assert not TextStyle().measure({"text": [""]}).any()
    both = TextStyle(["text", "text_pair"])
    assert len(both.vocabulary) == 2 * len(TextStyle().vocabulary)
    view = both.measure({"text": ["a, b"], "text_pair": ["a b"]})[0]
    assert view[both.vocabulary.index("comma (text)")] > 0
    assert view[both.vocabulary.index("comma (text_pair)")] == 0
