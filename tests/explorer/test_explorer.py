"""The explorer without a browser: which rows it shows, what marks make of the data set, and how little it reads."""

import io
import re
import sys

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, load_from_disk
from datasets import Image as ImageFeature
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.commands import called
from support.hub_server.running import running
from support.report_material import HOSTILE, TIED, encoded, hostile, images, long_named, texts

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import save_findings
from hf_midrange.association.mislabels import suspected_mislabels
from hf_midrange.bands import LogitBands
from hf_midrange.explorer import MARKS, edited
from hf_midrange.explorer.cards import Cards
from hf_midrange.explorer.index import PAGE, Choice, Index
from hf_midrange.explorer.marks import Exports, marks_in


@pytest.fixture(scope="module")
def pictures():
    ds = images()
    findings = hm.associate(ds)
    return hm.curate(ds, findings, strategy="group"), findings


@pytest.fixture(scope="module")
def index(pictures):
    return Index(pictures[0])


def everything(index, choice, members):
    """Return the rows of all pages, in order."""
    rows, page = [], 0
    while len(found := index.side(Choice(**{**vars(choice), "page": page}), members).rows):
        rows += found.tolist()
        page += 1
    return rows


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_pages_hold_every_row_that_meets_the_choice_nearest_first(pictures, index, data):
    ds = pictures[0]
    choice = Choice(
        unit=data.draw(st.integers(0, 2)),
        level=data.draw(st.floats(-6, 10)),
        label=data.draw(st.sampled_from([None, 0, 1, 2])),
        concept=data.draw(st.sampled_from([None, 0, 12])),
        having=data.draw(st.sampled_from(["either", "with", "without", "tie"])),
    )
    members = data.draw(st.booleans())
    logits, ids, present = columns.matrix(ds, "logits"), ds["label"][:], ds["concepts_tags"][:]
    expected = []
    for row in range(len(ds)):
        has = choice.concept in present[row]
        wanted = {"either": True, "with": has, "without": not has, "tie": has != members}[choice.having]
        if choice.concept is None:
            wanted = True
        if (ids[row] == choice.unit) == members and choice.label in (None, ids[row]) and wanted:
            expected.append(row)
    found = everything(index, choice, members)
    assert sorted(found) == expected
    distances = [abs(float(logits[row, choice.unit]) - choice.level) for row in found]
    assert distances == sorted(distances)
    assert index.side(choice, members).total == len(expected)


def test_suspected_rows_are_those_that_associate_suspects(pictures, index):
    ds, findings = pictures
    wrong = np.array(ds["label"][:])
    top = np.argsort(columns.matrix(ds, "logits")[:, 2])[-5:]  # surest rows of class 2, which no shortcut is tied to
    wrong[top] = 1
    relabelled = columns.with_columns(ds, {"label": (wrong, ds.features["label"])})
    relabelled = relabelled.remove_columns(["pseudo_group", "reason"])
    expected = suspected_mislabels(relabelled, findings)["row"][:]
    other = Index(relabelled, findings)
    found = other.suspects
    assert list(found) == [row for row in expected if row in found]  # some are explained by the shortcut
    caught = set(top.tolist()) & set(found)
    assert len(caught) >= 3
    assert {found[row] for row in caught} == {"class_2"}
    assert index.suspects == {}
    shown = other.side(Choice(unit=1), True, found)
    assert set(shown.rows) <= set(found)
    assert shown.total == sum(wrong[row] == 1 for row in found)
    card = Cards(relabelled, other).rows(Choice(unit=1), shown)[0]
    assert "may be mislabelled: looks like" in " ".join(card.split())


def test_the_middle_of_a_band_lies_in_it(pictures, index):
    ds = pictures[0]
    bands, logits = columns.matrix(ds, "band"), columns.matrix(ds, "logits")
    for unit in range(3):
        for band, name in enumerate(index.bands):
            level = index.middle_of(unit, band)
            inside = logits[bands[:, unit] == band, unit]
            assert inside.min() <= level <= inside.max()
            assert index.band_at(unit, level) == name
        scale = index.scale(unit)
        assert scale.low <= logits[:, unit].min()
        assert scale.high >= logits[:, unit].max()


def test_it_opens_at_a_shortcut_and_shows_the_rows_that_break_it(pictures, index):
    one = hm.shortcuts(*pictures)[0]
    found = Index(*pictures)
    first = found.jumps()[0]
    assert first.title.startswith(f"Shortcut ({one['reading']}): {one['name']} for {one['class']}: ")
    assert found.units[first.choice.unit] == one["class"]
    assert first.choice.having == "tie"
    for members in (True, False):
        shown = found.side(first.choice, members)
        assert len(shown.rows)
        assert set(shown.has.tolist()) == {not members}
        assert {*shown.rows.tolist()} <= {*one["rows"]} == found.breaking


def test_a_finding_leads_to_its_unit_band_and_concept(pictures, index):
    row = next(row for row in pictures[1].to_list() if row["confounder"])
    jump = next(jump for jump in Index(*pictures).jumps() if not jump.title.startswith("Shortcut"))
    assert "cue" in jump.title
    assert index.units[jump.choice.unit] == row["unit_name"]
    assert index.concepts[jump.choice.concept] == f"{row['source']}: {row['concept']}"
    assert index.band_at(jump.choice.unit, jump.choice.level) == row["band"]


def test_findings_of_other_rows_are_refused(pictures):
    other = pictures[1].map(lambda row: {"unit_name": "cat"})
    with pytest.raises(ValueError, match="unit 0 .*'cat'"):
        Index(pictures[0], other)
    other = pictures[1].map(lambda row: {"concept": "never seen"})
    with pytest.raises(ValueError, match="never seen"):
        Index(pictures[0], other)


def test_rows_without_concepts_or_bands_are_explored_too():
    ds = Dataset.from_dict({"label": [0, 1] * 20}).cast_column("label", ClassLabel(names=["a", "b"]))
    logits = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    logits[np.arange(40), np.arange(40) % 2] += 2
    index = Index(columns.with_columns(ds, {"logits": (logits, columns.vector(2))}))
    assert index.concepts == []
    assert index.side(Choice(unit=1, level=9.0), True).rows[0] == int(
        np.argmax(np.where(ds["label"], logits[:, 1], -9))
    )
    with pytest.raises(TypeError, match="one split"):
        Index(DatasetDict(train=ds))


@settings(max_examples=30, deadline=None)
@given(marks=st.dictionaries(st.integers(0, 599), st.sampled_from(MARKS), max_size=30))
def test_marks_are_obeyed_and_nothing_else_changes(pictures, marks):
    ds = pictures[0]
    made = edited(ds, marks)
    before = ds.select_columns(["keep", "weight", "label"]).to_dict()
    after = made.select_columns(["keep", "weight", "mark"]).to_dict()
    for row in range(len(ds)):
        mark = marks.get(row, "none")
        assert MARKS[after["mark"][row]] == mark
        was = before["keep"][row], before["weight"][row]
        expected = {"none": was, "keep": (True, was[1]), "drop": (False, 0.0), "mislabelled": (False, 0.0)}[mark]
        assert (after["keep"][row], after["weight"][row]) == expected
    assert marks_in(made) == {row: mark for row, mark in marks.items() if mark != "none"}
    assert hm.curation_report(made) == hm.curation_report(ds)
    assert made["image"][0].tobytes() == ds["image"][0].tobytes()


def test_a_dropped_row_marked_keep_weighs_as_its_label_does(pictures):
    ds = pictures[0]
    dropped = edited(ds, {7: "drop", 8: "drop"})
    back = edited(dropped, {7: "keep", 8: "drop"})
    same = [
        w
        for w, y, i in zip(ds["weight"], ds["label"], range(600), strict=False)
        if y == ds["label"][7] and i not in (7, 8)
    ]
    assert back["weight"][7] == pytest.approx(np.mean(same), rel=1e-6)
    assert back["reason"][7] == f"marked keep by hand; before: {ds['reason'][7]}"
    assert back["reason"][8].count("by hand") == 1
    assert back["reason"][9] == ds["reason"][9]
    assert "explore: marked by hand: 1 keep, 1 drop" in back.info.description


def test_marks_of_rows_that_are_not_there_are_refused(pictures):
    with pytest.raises(ValueError, match="row 600"):
        edited(pictures[0], {600: "drop"})
    with pytest.raises(ValueError, match="'remove'"):
        edited(pictures[0], {0: "remove"})


def test_rows_that_were_never_curated_count_equally():
    made = edited(images(60).remove_columns("group"), {3: "mislabelled"})
    assert made["weight"][:] == [0.0 if row == 3 else 1.0 for row in range(60)]
    assert "reason" not in made.column_names


def test_exports_replace_each_other_and_never_the_source(pictures, tmp_path):
    ds, findings = pictures
    ds.save_to_disk(tmp_path / "source")
    with pytest.raises(ValueError, match="choose another folder"):
        Exports(load_from_disk(tmp_path / "source"), findings, tmp_path / "source").refuse_own_folder()
    exports = Exports(load_from_disk(tmp_path / "source"), findings, tmp_path / "out")
    exports.write({1: "drop"})
    assert "1 mislabelled" in exports.write({2: "mislabelled"})
    made = load_from_disk(tmp_path / "out")
    assert marks_in(made) == {2: "mislabelled"}
    assert made["weight"][1] == ds["weight"][1]


PUSH = """
from pathlib import Path
from datasets import load_dataset, load_from_disk
from huggingface_hub import HfApi
from hf_midrange.association import load_findings
from hf_midrange.explorer.marks import Exports
exports = Exports(load_from_disk("rows"), load_findings("findings"), Path("out"))
print(exports.publish({4: "drop"}, " me/edited "))
made = load_dataset("me/edited", split="train")
print(HfApi().repo_info("me/edited", repo_type="dataset").private, made["mark"][:6], made["weight"][4])
"""


def test_edited_rows_are_published_privately(pictures, tmp_path):
    ds, findings = pictures
    ds.select(range(80)).save_to_disk(tmp_path / "rows")
    save_findings(findings, tmp_path / "findings")
    token = "hf_" + "a" * 34
    with running(tmp_path / "hub", {token: {"name": "me"}}) as server:
        done = server.run(f"import os; os.chdir({str(tmp_path)!r})\n{PUSH}", tmp_path / "home", token)
    assert done.returncode == 0, done.stderr
    assert "Published privately: http" in done.stdout
    assert "True [0, 0, 0, 0, 2, 0] 0.0" in done.stdout
    assert token not in done.stdout + done.stderr


def test_an_edited_set_goes_on_to_the_head(pictures):
    from support.report_material import head_of

    ds = pictures[0]
    marks = {int(row): "drop" for row in np.flatnonzero(np.asarray(ds["label"][:]) == 0)[:40]}
    before, after = (hm.retrain_head(each, head_of(ds)) for each in (ds, edited(ds, marks)))
    assert not np.allclose(before.weight, after.weight)


def test_of_100_000_rows_only_a_page_is_read(monkeypatch):
    """Work is bounded by the page: as many pictures are decoded as are shown, and no text or picture is scanned."""
    n = 100_000
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2, n)
    logits = rng.normal(size=(n, 2)).astype(np.float32)
    logits[np.arange(n), ids] += 2
    picture = encoded(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    ds = columns.with_columns(
        Dataset.from_dict({"label": ids}).cast_column("label", ClassLabel(names=["a", "b"])),
        {
            "image": ([{"bytes": picture, "path": None}] * n, ImageFeature()),
            "logits": (logits, columns.vector(2)),
            "concepts_tags": (
                columns.concept_arrow(rng.random((n, 3)) < 0.3, list("xyz")),
                columns.concept_list(list("xyz")),
            ),
        },
    )
    ds = LogitBands().fit(ds).transform(ds)
    decoded = []
    plain = ImageFeature.decode_example
    monkeypatch.setattr(ImageFeature, "decode_example", lambda *args, **kw: decoded.append(1) or plain(*args, **kw))
    index = Index(ds)
    cards = Cards(ds, index)
    assert decoded == []
    reads = []
    original = columns.some_units
    monkeypatch.setattr(columns, "some_units", lambda *args, **kw: reads.append(1) or original(*args, **kw))
    for page in range(3):
        choice = Choice(unit=1, level=1.0, concept=2, having="with", page=page)
        shown = [cards.rows(choice, index.side(choice, members)) for members in (True, False)]
        assert [len(side) for side in shown] == [PAGE, PAGE]
        assert len(decoded) == 2 * PAGE * (page + 1)
    assert len(reads) <= 2  # the unit's values and its bands, read once


def test_an_unreadable_picture_is_said_and_breaks_nothing(pictures):
    ds = pictures[0].select(range(60)).flatten_indices()
    stored = [
        {"bytes": b"no picture" if row % 2 else encoded(np.zeros((9, 9, 3), np.uint8)), "path": None}
        for row in range(60)
    ]
    ds = columns.with_columns(ds, {"image": (stored, ImageFeature())})
    index = Index(ds)
    choice = Choice(level=index.middle_of(0))
    found = index.side(choice, False)
    for row, card in zip(found.rows, Cards(ds, index).rows(choice, found), strict=True):
        assert ("cannot be read" in card) == bool(row % 2)
        assert ("<img" in card) != bool(row % 2)


def test_pictures_are_small(pictures):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3)).astype(np.uint8)
    ds = pictures[0].select(range(30)).flatten_indices()
    ds = columns.with_columns(ds, {"image": ([{"bytes": encoded(noise, "JPEG"), "path": None}] * 30, ImageFeature())})
    index = Index(ds)
    cards = Cards(ds, index).rows(Choice(), index.side(Choice(), False))
    assert max(map(len, cards)) < 40_000
    uri = cards[0].split('src="data:image/webp;base64,')[1].split('"')[0]
    import base64

    assert Image.open(io.BytesIO(base64.b64decode(uri))).size == (160, 90)


def test_a_concept_is_marked_in_its_sentence():
    ds = texts()
    index = Index(ds)
    concept = index.concepts.index(f"ngrams_text: {TIED}") if f"ngrams_text: {TIED}" in index.concepts else None
    concept = (
        next(k for k, name in enumerate(index.concepts) if name.endswith(f": {TIED}")) if concept is None else concept
    )
    choice = Choice(level=0.0, concept=concept, having="with")
    for card in Cards(ds, index).rows(choice, index.side(choice, True)):
        assert "<mark>Film</mark>" in card
        assert "● has film" in card


def test_hostile_text_is_inert_in_every_card():
    ds = hostile()
    index, seen = Index(ds), ""
    cards = Cards(ds, index)
    for unit in range(len(index.units)):
        choice = Choice(unit=unit, concept=len(index.concepts) - 1)
        for members in (True, False):
            found = index.side(choice, members)
            seen += "".join(cards.rows(choice, found)) + cards.side(choice, found, members) + cards.range(choice)
    assert "<script" not in seen
    assert "<iframe" not in seen
    assert "onerror=&#34;" in seen
    assert "\u202e" not in seen
    assert any("\u202e" in name for name in HOSTILE)
    for jump in Index(ds, hm.associate(ds)).jumps():
        assert "\u202e" not in jump.title


def test_names_of_any_length_are_shortened():
    ds = long_named(200_000)
    index = Index(ds, hm.associate(ds))
    told = [*index.concepts, *index.units]
    assert max(map(len, told)) < 100
    assert len(set(told)) == len(told)
    assert max(len(jump.title) for jump in index.jumps()) < 300
    cards, choice = Cards(ds, index), Choice(concept=0)
    for members in (True, False):
        found = index.side(choice, members)
        said = "".join([*cards.rows(choice, found), cards.side(choice, found, members), cards.range(choice)])
        assert "x" * 100 not in said


def test_the_command_says_what_is_in_the_way(pictures, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    ds, _ = pictures
    ds.select(range(60)).save_to_disk(tmp_path / "rows")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        called("explore", tmp_path / "rows", "--output", tmp_path / "full")
    with pytest.raises(ValueError, match="choose another folder"):
        called("explore", tmp_path / "rows", "--output", tmp_path / "rows", "--overwrite", "--no-browser")
    with pytest.raises(ValueError, match="names no owner"):
        called("explore", tmp_path / "rows", "--space", "look", "--output", tmp_path / "space")
    assert not (tmp_path / "space").exists()
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    with pytest.raises(ValueError, match=re.escape("pip install 'hf-midrange[explore]'")):
        called("explore", tmp_path / "rows", "--output", tmp_path / "out")
