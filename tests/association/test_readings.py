"""What findings are called: cues that may belong to the class, and what only one class has."""

import numpy as np
from support.associations import dataset

from hf_midrange.association import associate


def two(seed, of_members, of_strangers, effect, n=2000, apart=1.0):
    """One concept beside ten of noise; the concept raises the second class's logit in everyone."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(n) % 2)
    has = rng.random(n) < np.where(ids == 1, of_members, of_strangers)
    z = rng.normal(size=n) + apart * (2 * ids - 1) + effect * has
    present = np.column_stack([has, rng.random((n, 10)) < 0.2])
    return dataset(np.stack([-z, z], axis=1) / 2, ids, present, ["it", *(f"noise_{j}" for j in range(10))])


def readings(findings):
    return {(row["reading"], row["rests_on"]) for row in findings if row["concept"] == "it" and row["confirmed"]}


def test_a_part_of_the_class_is_a_cue_and_never_called_a_shortcut():
    for seed in range(5):
        findings = associate(two(seed, 0.9, 0.1, 3.0), seed=seed)
        assert readings(findings) == {("cue", "association and tie")}
        row = next(row for row in findings if row["confounder"])
        assert row["tie"] > 30
        assert 100 < row["broken_by"] < 300


def test_a_cue_that_is_not_tied_says_so():
    findings = associate(two(0, 0.3, 0.3, 1.5))
    assert readings(findings) == {("cue", "association")}


def test_a_watermark_of_one_class_is_found_and_named():
    named = 0
    for seed in range(10):
        findings = associate(two(seed, 0.3, 0.002 * (seed % 2), 2.0, n=3000, apart=1.25), seed=seed)
        assert "core" not in findings["reading"]
        named += ("one-sided", "members alone") in readings(findings)
        assert not any(row["confounder"] for row in findings)
    assert named >= 9


def test_what_the_middle_alone_shows_says_more_than_the_top():
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.arange(3000) % 2)
    z = rng.normal(size=3000) + np.where(ids == 1, 1.5, -1.5)
    odds = 0.25 * 3.0 ** np.where((ids == 0) == (np.abs(z) < 1.5), 1, -1)
    present = np.column_stack([rng.random(3000) < odds / (1 + odds), rng.random((3000, 10)) < 0.2])
    findings = associate(dataset(np.stack([-z, z], 1) / 2, ids, present, ["it", *map(str, range(10))]))
    assert [row["p_beyond_top"] < 0.001 for row in findings if row["confounder"]] == [True]
    assert all(row["p_beyond_top"] is None for row in findings if row["band"] == "high")
