"""Each tie is told once, with a right name, first; nothing is told where nothing is tied."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from support.tied_rows import simulate

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.ties.evidence import agreement, lift
from hf_midrange.ties.telling import UNNAMED


def tied(
    tie=0.95, classes=2, n=1600, strength=3.0, seed=0, source="photo", noise=0.03, words=("yellow", "bluish", "round")
):
    """Rows whose first class goes with the first word, which raises its logit; the second says the same less well."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(n) % classes)
    has = rng.random(n) < np.where(ids == 0, tie, 1 - tie)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), ids] += 2
    logits[:, 0] += strength * (has - 0.5)
    if classes == 2:
        logits[:, 1] -= strength * (has - 0.5)
    present = np.column_stack([has, has != (rng.random(n) < noise), rng.random(n) < 0.3])
    names = [f"class {k}" for k in range(classes)]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=names)}))
    made = {
        "logits": (logits.astype(np.float32), columns.vector(classes)),
        f"concepts_{source}": (columns.concept_arrow(present, list(words)), columns.concept_list(list(words))),
    }
    return columns.with_columns(ds, made)


@pytest.fixture(scope="module")
def rows():
    return tied()


@pytest.fixture(scope="module")
def found(rows):
    return hm.shortcuts(rows, hm.associate(rows))


def test_one_tie_is_one_shortcut_with_its_sharpest_name(rows, found):
    assert found["name"][:] == ["yellow"]
    assert found["class"][:] == ["class 0"]
    assert found["reading"][:] == ["shown"]


def test_the_rows_are_those_that_break_the_tie(rows, found):
    has = columns.presence(rows, "concepts_photo").toarray()[:, 0]
    contrary = np.flatnonzero((columns.labels(rows) == 0) != has)
    assert found["rows"][0] == contrary.tolist()
    strangers = int((has & (columns.labels(rows) == 1)).sum())
    assert found["sentence"][0] == f"“class 1” with “yellow” scores 3.0 lower; {strangers} of 800 break the tie"


def test_strength_and_harm_are_what_was_put_in(found):
    assert found["strength"][0] == pytest.approx(3.0, abs=0.2)
    assert 0.4 < found["errors_explained"][0] < 1


def test_of_several_classes_members_without_it_are_told_of():
    rows = tied(classes=3, n=2400, strength=4.0)
    one = hm.shortcuts(rows, hm.associate(rows))[0]
    assert one["sentence"].startswith("“class 0” without “yellow” scores 4.")
    assert one["sentence"].endswith(" of 800 break the tie")


def test_numbered_parts_support_but_do_not_name():
    rows = tied(source="thumbnail")
    one = hm.shortcuts(rows, hm.associate(rows))[0]
    assert one["name"] == f"{UNNAMED} (seen in thumbnail)"
    assert one["findings"]
    assert "channel" not in one["sentence"]


def test_the_longest_phrase_that_the_same_rows_say_is_the_name():
    rows = tied(source="ngrams", noise=0.0, words=("dvd", "on dvd", "film"))
    one = hm.shortcuts(rows, hm.associate(rows))[0]
    assert one["name"] == "on dvd"
    assert one["sentence"].startswith("“class 1” that says “on dvd” scores 3.0 lower")


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_told_where_nothing_is_tied(seed):
    rows = tied(tie=0.5, seed=seed)
    assert len(hm.shortcuts(rows, hm.associate(rows))) == 0


def test_pseudo_groups_are_a_shortcut_of_their_own_where_no_finding_is():
    curated = hm.curate(simulate(800))
    assert hm.curation_report(curated)["verdict"] == "shown"
    nothing = hm.associate(hm.LogitBands().fit(curated).transform(curated)).select([])
    found = hm.shortcuts(curated, nothing)
    assert len(found) == 1
    assert found["reading"][0] == "shown"
    broken = (columns.labels(curated) != columns.labels(curated, "group")).nonzero()[0]
    assert len({*broken} & {*found["rows"][0]}) > 0.9 * len(broken)


def test_nothing_is_told_where_the_curation_saw_nothing():
    curated = hm.curate(simulate(800, contrary=0.5))
    assert hm.curation_report(curated)["verdict"] == "none seen"
    assert len(hm.shortcuts(curated, hm.associate(curated))) == 0


def test_two_ties_are_two_shortcuts_the_more_harmful_first():
    one, other = tied(), tied(seed=1, strength=1.5, source="frame", words=("framed", "bordered", "wide"))
    ids = columns.labels(one)
    order = np.argsort(columns.labels(other), kind="stable")[np.argsort(np.argsort(ids, kind="stable"))]
    other = other.select(order)
    logits = columns.matrix(one, "logits") + columns.matrix(other, "logits") - 2 * np.eye(2, dtype=np.float32)[ids]
    present = columns.presence(other, "concepts_frame")
    words = columns.vocabulary(other.features, "concepts_frame")
    both = columns.with_columns(
        one.remove_columns("logits"),
        {
            "logits": (logits.astype(np.float32), columns.vector(2)),
            "concepts_frame": (columns.concept_arrow(present, words), columns.concept_list(words)),
        },
    )
    assert hm.shortcuts(both, hm.associate(both))["name"][:] == ["yellow", "framed"]


def test_agreement_is_one_for_a_part_and_nothing_for_chance():
    from scipy import sparse

    rng = np.random.default_rng(0)
    ids, large = np.arange(4000) % 2, rng.random(4000) < 0.3
    part, other = large & (rng.random(4000) < 0.3), rng.random(4000) < 0.3
    found = agreement(sparse.csr_matrix(np.column_stack([large, part, other]), dtype=np.float32), ids)
    assert found[0, 1] == pytest.approx(1, abs=1e-4)
    assert found[0, 2] < 0.06


def test_lift_is_the_difference_within_labels():
    ids, has = np.repeat([0, 1], 40), np.tile([True, False], 40)
    assert lift(5.0 * ids + 2.0 * has, has, ids)[0] == pytest.approx(2)
    assert np.isnan(lift(ids.astype(float), ids == 1, ids)[0])
