"""What a source is: a user's own class or function, what it may be called, and how it is kept."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from datasets import Dataset, Features, List
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts import (
    Annotations,
    EarlyFeatures,
    ImageProperties,
    LatentConcepts,
    NGrams,
    Predictions,
    Source,
    Thumbnail,
    ZeroShot,
    annotate,
    load_source,
)


@pytest.fixture(scope="module")
def ds():
    return Dataset.from_dict({"text": ["a", "bb", "cccc", "dddddd"] * 5, "night": [True, False] * 10})


@dataclass(frozen=True)
class Long(Source):
    """Inherits what a source shares; the threshold is learnt."""

    column: str = "text"
    name: str = "long"
    words: tuple[str, ...] = ()
    cut: float = 0.0
    left_out: tuple[str, ...] = ()
    reads = 'Value("string")'

    def learn(self, ds):
        return replace(self, words=("long",), cut=float(np.median([len(text) for text in ds["text"]])))

    def read(self, batch):
        return sparse.csr_matrix(np.array([[len(text) > self.cut] for text in batch["text"]]))


def test_a_class_of_the_users_own_is_a_source(ds):
    out = annotate(ds, [Long()])
    assert [bool(row) for row in out["concepts_long"]] == [len(text) > 3 for text in ds["text"]]
    assert out.column_names == [*ds.column_names, "concepts_long"]


def test_a_source_without_its_stages_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (Source,), {"name": "empty"})()


@pytest.mark.parametrize(
    "name", ["../../escaped", "/abs/escaped", "a/b", "a\\b", "", ".hidden", "a\nb", "a\u202eb", "x" * 81, "a\x00b", 3]
)
def test_a_name_that_is_no_plain_file_name_is_refused(ds, name, tmp_path):
    for make in (Thumbnail, NGrams, EarlyFeatures, Annotations):
        needed = [["night"]] if make is Annotations else []
        needed = ["no model"] if make is EarlyFeatures else needed
        with pytest.raises(ValueError, match="cannot be called"):
            make(*needed, name=name)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", ["two words", "Größe", "v1.2-b+c", "_x"])
def test_plain_names_name_column_and_file(ds, name, tmp_path):
    out = annotate(ds, [Annotations(["night"], name=name)], output_dir=tmp_path)
    assert f"concepts_{name}" in out.column_names
    assert (tmp_path / f"{name}.json").is_file()


def test_sizes_without_bound_are_refused():
    for make in (
        lambda: Annotations(["night"], bins=10**9),
        lambda: LatentConcepts(k=10**9),
        lambda: Thumbnail(size=10**9),
        lambda: NGrams(longest=10**9),
    ):
        with pytest.raises(ValueError, match="1000000000"):
            make()


def test_measured_columns_keep_their_features_where_there_are_no_rows(ds):
    out = annotate(ds.select([]), [Long(words=("long",))])
    assert out.features == Features({**ds.features, "concepts_long": List(columns.concept_list(["long"]).feature)})


def test_a_source_goes_to_a_folder_and_comes_back_by_any_of_its_names(ds, tmp_path):
    fitted = NGrams(min_rows=1, exclude=("a",)).fit(ds)
    fitted.save_pretrained(tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["source.json"]
    assert NGrams.from_pretrained(tmp_path / "kept") == fitted
    assert Source.from_pretrained(tmp_path / "kept") == fitted
    assert load_source(tmp_path / "kept" / "source.json") == fitted
    with pytest.raises(ValueError, match="kind 'NGrams', not one of .'Thumbnail'"):
        Thumbnail.from_pretrained(tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match=r"no source\.json"):
        NGrams.from_pretrained(tmp_path)


LATENT = LatentConcepts(k=2, mean=(0.0, 0.0), scale=(1.0, 1.0), centres=((0.0, 0.0), (1.0, 1.0)), words=("a", "b"))


@pytest.mark.parametrize(
    ("source", "bent"),
    [
        (LATENT, {"scale": [1.0]}),
        (LATENT, {"centres": [[0.0], [1.0]]}),
        (LATENT, {"words": ["a"]}),
        (Thumbnail(thresholds=(0.5,) * 48), {"thresholds": [0.5]}),
        (Thumbnail(thresholds=(0.5,) * 48), {"size": 10**9}),
        (ImageProperties(thresholds=(0.5,) * 19, words=("sharp",)), {"thresholds": [0.5] * 3}),
        (Predictions("a/model", words=("a", "b"), ids=(0, 1)), {"ids": [0]}),
        (ZeroShot(["a"], "a/model", null_mean=(0.1,), null_scale=(1.0,)), {"null_scale": [1.0, 1.0]}),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else each.name,
)
def test_a_file_whose_parts_do_not_fit_each_other_is_refused(source, bent, tmp_path):
    source.save(tmp_path / "source.json")
    assert load_source(tmp_path / "source.json") == source
    facts = json.loads((tmp_path / "source.json").read_text())
    (tmp_path / "source.json").write_text(json.dumps({**facts, **bent}))
    with pytest.raises(ValueError, match="fit (it|the source) again|whole numbers"):
        load_source(tmp_path / "source.json")
