"""Files that are read back, changed in every way: a right result, or one line that names the file and what to do."""

import copy
import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import typer
from datasets import Dataset, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.associations import simulated
from support.curated_rows import curated
from typer.testing import CliRunner

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import load_findings, save_findings
from hf_midrange.commands.app import app
from hf_midrange.curation.report import curation_report
from hf_midrange.extraction.shards import ShardFolder, read_shards, shard_paths
from hf_midrange.io.datasets import read_dataset, write_dataset
from hf_midrange.io.files import DamagedFileError
from hf_midrange.training.holdout import Holdout


OURS = (ValueError, OSError)
JUNK = [
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "\ud800",
    [],
    {},
    [[[0]]],
    [None],
]
FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def bent(content: bytes, data: st.DataObject) -> bytes:
    """Return bytes with some flipped, cut out, or put in."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(changed) - 1, 0)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if how == "flip" and changed:
            changed[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del changed[at : at + data.draw(st.integers(1, 40))]
        elif how == "insert":
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        else:
            del changed[at:]
    return bytes(changed)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Return the path of every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def twisted(value: object, data: st.DataObject) -> object:
    """Return a JSON value with one entry lost or of another type."""
    changed = copy.deepcopy(value)
    path = data.draw(st.sampled_from(places(changed)))
    if not path:
        return data.draw(st.sampled_from(JUNK))
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        del holder[path[-1]]
    else:
        holder[path[-1]] = data.draw(st.sampled_from(JUNK))
    return changed


def outcome(read, *named: str):
    """Return what `read` gives, or None where it refuses in a line of ours that names the file."""
    try:
        return read()
    except OURS as error:
        said = f"{type(error).__name__}: {error}"
    assert any(name in said for name in named), said
    assert "\n" not in said
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One of each file that is read back: name -> (files, reader)."""
    place = tmp_path_factory.mktemp("made")
    ds = simulated(n=300)
    for rule in ("class-relative", "quantile"):
        hm.LogitBands(rule).fit(ds).save_pretrained(place / rule)
    text = Dataset.from_dict(
        {"text": ["a good film", "a bad one", "no film"] * 8, "place": ["sea", "land", "air"] * 8}
    )
    for source in (hm.NGrams("text", min_rows=2), hm.TextStyle("text"), hm.Annotations(["place"])):
        source.fit(text).save(place / f"{source.name}.json")
    hm.LinearHead.from_weights(np.eye(2, 3), [0.0, 1.0], ("a", "b")).save_pretrained(place / "head")
    save_findings(hm.associate(ds), place / "findings")
    (place / "held").mkdir()
    Holdout(0.5, 0, 4, [0, 2]).write(place / "held")
    write_dataset(curated(), place / "rows")
    readers = {
        "class-relative/bands.json": lambda at: hm.LogitBands.from_pretrained(at / "class-relative"),
        "quantile/bands.json": lambda at: hm.LogitBands.from_pretrained(at / "quantile"),
        "ngrams.json": lambda at: hm.load_source(at / "ngrams.json"),
        "text_style.json": lambda at: hm.load_source(at / "text_style.json"),
        "annotations.json": lambda at: hm.load_source(at / "annotations.json"),
        "head/head.json": lambda at: hm.LinearHead.from_pretrained(at / "head"),
        "head/head.safetensors": lambda at: hm.LinearHead.from_pretrained(at / "head"),
        "findings/findings.parquet": lambda at: load_findings(at / "findings"),
        "findings/provenance.json": lambda at: load_findings(at / "findings"),
        "held/curation_rows.json": lambda at: Holdout.read(at / "held"),
        "rows/data-00000-of-00001.arrow": lambda at: read_dataset(str(at / "rows")),
        "rows/state.json": lambda at: read_dataset(str(at / "rows")),
        "rows/dataset_info.json": lambda at: read_dataset(str(at / "rows")),
        "rows/checksums.json": lambda at: read_dataset(str(at / "rows")),
    }
    return place, readers


FILES = [
    "class-relative/bands.json", "quantile/bands.json", "ngrams.json", "text_style.json", "annotations.json",
    "head/head.json", "head/head.safetensors", "findings/findings.parquet", "findings/provenance.json",
    "held/curation_rows.json", "rows/data-00000-of-00001.arrow", "rows/state.json", "rows/dataset_info.json",
    "rows/checksums.json",
]  # fmt: skip


def comparable(read: object) -> object:
    if isinstance(read, Dataset):
        return read.to_list(), read.features, read.info.description
    return (read.weight.tolist(), read.bias.tolist(), read.class_names) if isinstance(read, hm.LinearHead) else read


@pytest.mark.parametrize("name", FILES)
def test_bent_bytes_are_refused_or_change_nothing(name, made, tmp_path):
    place, readers = made
    at = tmp_path / "copy"
    shutil.copytree(place, at)
    right, content = comparable(readers[name](place)), (place / name).read_bytes()
    if isinstance(right, tuple) and len(right) == 3 and isinstance(right[2], str):
        right = copy.deepcopy(right)

    @FEW
    @given(st.data())
    def check(data):
        (at / name).write_bytes(bent(content, data))
        read = outcome(lambda: comparable(readers[name](at)), Path(name).name, str(at))
        if name.endswith(".json") and not name.startswith("rows/"):
            return  # a letter or digit of it may be another one
        assert read is None or read == right or repr(read) == repr(right)  # nan is not nan

    check()


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json") and not name.startswith("rows/")])
def test_twisted_json_is_refused_or_works(name, made, tmp_path):
    """Files as a text editor leaves them."""
    place, readers = made
    at = tmp_path / "copy"
    shutil.copytree(place, at)
    saved = json.loads((place / name).read_text())
    logits = Dataset.from_dict({"logits": [[0.0, 1.0]], "label": [0], "text": ["a"], "place": ["sea"]})
    logits = logits.cast_column("logits", columns.vector(2))

    @FEW
    @given(st.data())
    def check(data):
        (at / name).write_text(json.dumps(twisted(saved, data)))
        read = outcome(lambda: readers[name](at), Path(name).name, str(at))
        if isinstance(read, hm.LogitBands) and read.fitted:
            outcome(lambda: read.transform(logits), "")
        if hasattr(read, "present") and read.fitted:
            with suppress(KeyError):  # a column that is not there
                outcome(lambda: hm.annotate(logits.remove_columns("logits"), [read]), "")

    check()


def test_two_files_of_different_heads_are_not_one_head(made, tmp_path):
    place, _ = made
    shutil.copytree(place / "head", tmp_path / "head")
    hm.LinearHead.from_weights(np.zeros((2, 3)), [0.0, 1.0], ("a", "b")).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "head.safetensors", tmp_path / "head")
    with pytest.raises(DamagedFileError, match=r"head\.safetensors is not what was written"):
        hm.LinearHead.from_pretrained(tmp_path / "head")


@FEW
@given(data=st.data(), bytewise=st.booleans())
def test_manifests_and_records(data, bytewise, tmp_path_factory):
    at = tmp_path_factory.mktemp("shards")
    key = {"rows": 2, "columns": ["text"], "model": "m"}
    ShardFolder(at, Features()).claim(key, {}, is_main=True)
    table, record = shard_paths(at, 0)
    table.write_bytes(b"not read")
    facts = {"first": 0, "rows": 2, "unreadable": {"1": "cut"}, "not_finite": [0], "sha256": "0" * 64}
    record.write_text(json.dumps(facts))
    for path in (at / "manifest.json", record):
        content = path.read_bytes()
        value = json.loads(content)
        path.write_bytes(bent(content, data) if bytewise else json.dumps(twisted(value, data)).encode())
        outcome(lambda: ShardFolder(at, Features()).claim(key, {}, is_main=True), "manifest.json", "another run")
        assert outcome(lambda: read_shards(at), record.name, table.name, "manifest.json", str(at)) is None
        path.write_bytes(content)


@FEW
@given(st.data())
def test_the_report_of_a_curation(data):
    ds = curated()
    written = ds.features["reason"].id
    if data.draw(st.booleans()):
        changed = bent(written.encode(), data).decode(errors="replace")
    else:
        changed = json.dumps(twisted(json.loads(written), data))
    features = ds.features.copy()
    features["reason"] = Value("string", id=changed)
    ds = ds.cast(features)
    read = outcome(lambda: curation_report(ds), "reason", "report")
    assert read is None or isinstance(read, dict)


@FEW
@given(data=st.data())
def test_configuration_files(data, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    file = tmp_path_factory.mktemp("config") / "flags.yaml"
    value = {"dataset": "no/such/folder", "output": "nowhere", "seed": 1, "edges": [0.1, 0.2], "overwrite": False}
    if data.draw(st.booleans()):
        file.write_bytes(bent(json.dumps(value).encode(), data))
    else:
        file.write_text(json.dumps(twisted(value, data)))
    ended = CliRunner().invoke(app, ["bands", "--config", str(file)])
    assert isinstance(ended.exception, SystemExit | ValueError | OSError | typer.Exit), repr(ended.exception)


@pytest.mark.parametrize(
    "text",
    ["a: 2024-99-99", "a: !!python/object/apply:os.system ['touch hacked']", "[" * 5000, "a: &a [*a]", "\x00", "1: 2"],
)
def test_hostile_yaml(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.yaml").write_text(text)
    ended = CliRunner().invoke(app, ["bands", "--config", "flags.yaml"])
    assert ended.exit_code == 2
    assert "flags.yaml" in ended.output
    assert not (tmp_path / "hacked").exists()
