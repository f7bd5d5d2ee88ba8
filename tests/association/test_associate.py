import numpy as np
import pytest
from datasets import Dataset, load_dataset, load_from_disk
from support.associations import dataset, simulated

from hf_midrange import columns, curate
from hf_midrange.association import associate, findings_table, load_findings, provenance, save_findings
from hf_midrange.association.inputs import read_inputs
from hf_midrange.bands import LogitBands
from hf_midrange.publishing.dataset import Content, write_files


def same(one, other):
    """Equality in which NaN equals NaN."""
    return repr(one[:]) == repr(other[:])


def test_a_planted_confounder_is_found_in_the_middle_and_nothing_else():
    findings = associate(simulated())
    confounders = findings.filter(lambda row: row["confounder"])
    assert {(row["unit_name"], row["band"], row["concept"]) for row in confounders} == {("class_0", "mid", "tied")}
    row = confounders[0]
    assert row["odds_ratio"] > 1
    assert row["member_odds_ratio"] < 1 < row["stranger_odds_ratio"]
    assert row["ci_low"] < row["odds_ratio"] < row["ci_high"]
    assert row["member_shape"] == row["stranger_shape"] == "rising"
    assert not any(row["confirmed"] for row in findings if row["concept"] != "tied")
    assert list(findings["p_value"]) == sorted(findings["p_value"])


def test_hardness_is_told_from_confounding():
    rng = np.random.default_rng(1)
    n = 4000
    ids = np.arange(n) % 4
    blurred = rng.random(n) < 0.3
    logits = np.where(ids[:, None] == np.arange(4), 2.0, -2.0) * np.where(blurred, 0.3, 1.0)[:, None]
    logits += rng.normal(size=(n, 4)) * 0.7
    findings = associate(dataset(logits, ids, blurred[:, None], ["blurred"]))
    middle = [row for row in findings if row["band"] == "mid"]
    assert {row["reading"] for row in middle} == {"hardness"}
    assert not any(row["confounder"] for row in findings)


@pytest.mark.parametrize("tied_to", [0, 1])
def test_mirrored_units_are_reported_once(tied_to):
    ds = simulated(classes=2)
    values = columns.matrix(ds, "logits")
    z = values[:, 0] - values[:, 1]
    order = [0, 1] if tied_to == 0 else [1, 0]
    present, names = columns.presence(ds, "concepts_tags"), columns.vocabulary(ds.features, "concepts_tags")
    ids = np.asarray(order)[columns.labels(ds)]
    ds = dataset(np.stack([z, -z], axis=1)[:, order], ids, present, names)
    once = associate(ds)
    confounders = [(row["unit"], row["band"], row["concept"]) for row in once if row["confounder"]]
    assert confounders == [(tied_to, "mid", "tied")]
    assert all(ratio > 1 for ratio in once["odds_ratio"])
    assert provenance(once)["mirrored_findings_dropped"]


def test_derived_concepts_are_marked_and_never_confirmed():
    ds = simulated(column="concepts_clusters")
    assert not any(associate(ds)["derived"])
    feature = columns.with_facts(ds.features["concepts_clusters"], derived=True)
    findings = associate(ds.cast_column("concepts_clusters", feature))
    assert all(findings["derived"])
    assert len(findings)
    assert not any(findings["confirmed"])
    assert not any(findings["confounder"])


def test_bands_are_fitted_where_there_are_none():
    ds = simulated()
    assert same(associate(ds), associate(LogitBands().fit(ds).transform(ds)))


def test_the_seed_chooses_the_halves():
    ds = simulated()
    assert same(associate(ds, seed=3), associate(ds, seed=3))
    assert not same(associate(ds, seed=3), associate(ds, seed=4))


def test_relabelling_classes_changes_only_the_unit_numbers():
    ds = simulated()
    order = np.array([2, 0, 1])
    values, ids = columns.matrix(ds, "logits"), columns.labels(ds)
    present = columns.presence(ds, "concepts_tags")
    names = columns.vocabulary(ds.features, "concepts_tags")
    moved = dataset(values[:, order], np.argsort(order)[ids], present, names)
    groups = np.arange(len(ids))
    one = associate(moved.add_column("source_id", groups), alpha=0.05)
    confounders = [row for row in one if row["confounder"]]
    assert {(row["unit"], row["band"], row["concept"]) for row in confounders} == {(1, "mid", "tied")}


def test_what_was_not_tested_is_counted():
    ds = simulated(n=400, prevalence=0.002)
    facts = provenance(associate(ds))
    assert facts["tested"] + sum(facts["not_tested"].values()) == 3 * (3 + 1) * 31  # three bands and the whole range
    assert any("concept" in reason for reason in facts["not_tested"])


def test_findings_survive_saving(tmp_path):
    findings = associate(simulated())
    loaded = load_findings(save_findings(findings, tmp_path / "found"))
    assert loaded.features == findings.features
    assert same(loaded, findings)
    assert provenance(loaded) == provenance(findings)
    text = findings_table(findings, rows=3)
    assert "tags: tied" in text
    assert "not tested" in text or "discovered" in text


def test_a_notebook_shows_findings_as_their_table(tmp_path):
    findings = associate(simulated())
    shown = findings._repr_html_()
    assert shown == findings_table(findings)._repr_html_()
    assert shown.count("<tr>") == min(len(findings), 20) + 1
    assert "tags: tied" in load_findings(save_findings(findings, tmp_path / "findings"))._repr_html_()


def test_no_finding_is_an_empty_dataset_with_the_same_columns():
    ds = simulated().select_columns(["label", "logits", "concepts_tags"])
    nothing = associate(ds, alpha=1e-300)
    assert len(nothing) == 0
    assert nothing.features == associate(ds).features
    assert "0 of" in findings_table(nothing)


def test_sources_are_never_split():
    from hf_midrange.io.blocks import discovery_half

    rng = np.random.default_rng(0)
    source = rng.integers(0, 50, size=400)
    half = discovery_half(source % 2, source, seed=1)
    for value in np.unique(source):
        assert len(set(half[source == value])) == 1
    assert 100 < half.sum() < 300
    plain = discovery_half(source % 2, None, seed=1)
    assert abs(plain[source % 2 == 0].sum() - (source % 2 == 0).sum() / 2) <= 1


def test_concepts_that_say_the_same_share_a_group():
    ds = simulated()
    present = columns.presence(ds, "concepts_tags").toarray()
    twin = present[:, -1] ^ (np.random.default_rng(0).random(len(present)) < 0.02)
    names = [*columns.vocabulary(ds.features, "concepts_tags"), "twin"]
    ds = dataset(columns.matrix(ds, "logits"), ds["label"][:], np.column_stack([present, twin]), names)
    groups = {row["concept"]: row["group"] for row in associate(ds) if row["confounder"]}
    assert set(groups) == {"tied", "twin"}
    assert len(set(groups.values())) == 1


def test_bad_input_is_refused():
    ds = simulated()
    with pytest.raises(KeyError, match="annotate"):
        associate(ds.remove_columns("concepts_tags"))
    with pytest.raises(KeyError, match="label"):
        associate(ds.remove_columns("label"))
    with pytest.raises(ValueError, match="no rows"):
        associate(ds.select([]))
    with pytest.raises(ValueError, match="alpha"):
        associate(ds, alpha=5)


def test_units_that_are_no_classes_are_tested_within_labels():
    ds = simulated()
    values = columns.matrix(ds, "logits")[:, :2]
    ds = columns.with_columns(ds, {"embedding": (np.ascontiguousarray(values), columns.vector(2))})
    banded = LogitBands("quantile", units="embedding").fit(ds).transform(ds)
    findings = associate(banded.remove_columns("logits"))
    top = [row for row in findings if row["band"] == "high" and row["confirmed"]]
    assert [(row["unit_name"], row["concept"]) for row in top] == [("unit_0", "tied")]
    assert not any(findings["confounder"])
    assert all(profile is None for profile in findings["member_profile"])


def test_ranges_are_read_from_the_column_that_bands_were_cut_from():
    ds = simulated(classes=3)
    values = np.random.default_rng(0).normal(size=(len(ds), 3)).astype(np.float32)
    ds = columns.with_columns(ds, {"embedding": (values, columns.vector(3))})
    banded = LogitBands("quantile", units="embedding").fit(ds).transform(ds)
    assert read_inputs(banded).values == "quantile"
    assert read_inputs(LogitBands().fit(ds).transform(ds)).values == "logits"
    assert read_inputs(banded.remove_columns(["quantile"])).values == "band"


@pytest.mark.parametrize(("bands", "names"), [(2, {"low", "high"}), (3, {"low", "mid", "high"})])
@pytest.mark.parametrize("way", ["as it is", "disk", "parquet", "published"])
def test_bands_are_named_as_they_were_cut_wherever_the_rows_have_been(bands, names, way, tmp_path):
    ds = LogitBands(n_bands=bands).fit(simulated()).transform(simulated())
    if way == "disk":
        ds.save_to_disk(tmp_path / "rows")
        ds = load_from_disk(tmp_path / "rows")
    if way == "parquet":
        ds.to_parquet(tmp_path / "rows.parquet")
        ds = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path))
    if way == "published":
        ds = columns.with_columns(ds, {"embedding": (columns.matrix(ds, "logits"), columns.vector(3))})
        write_files(Content.of(curate(ds, strategy="class-balanced")), "me/rows", tmp_path)
        ds = load_dataset(str(tmp_path), split="train")
    ds.info.description = "a description of the user's own"
    findings = associate(ds)
    assert set(findings["band"]) == names
    assert any(findings["confounder"])


def test_bands_of_the_users_own_are_named_by_what_is_seen():
    ds = LogitBands().fit(simulated()).transform(simulated())
    below = ds.filter(lambda row: max(row["band"]) < 2)
    plain = columns.with_columns(below, {"band": (columns.matrix(below, "band"), columns.vector(3, "int8"))})
    assert read_inputs(below).band_names == read_inputs(plain).band_names == ("low", "mid", "high")


def test_rows_and_units_without_a_band_are_left_out():
    ds = LogitBands().fit(simulated()).transform(simulated())
    band = columns.matrix(ds, "band").copy()
    band[:, 2] = -1
    band[:100, 0] = -1
    holes = columns.with_columns(ds, {"band": (band, columns.vector(3, "int8"))})
    findings = associate(holes)
    assert provenance(findings)["units_left_out"] == {"class_2": "it has no bands"}
    assert any(row["confounder"] for row in findings)
    band[:] = -1
    with pytest.raises(ValueError, match="no unit has bands"):
        associate(columns.with_columns(ds, {"band": (band, columns.vector(3, "int8"))}))
