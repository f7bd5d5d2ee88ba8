"""Figures: what stands in their axes, against the data; never pixels."""

import sys

import numpy as np
import pytest
from datasets import ClassLabel
from support.report_material import head_of, images

import hf_midrange as hm
from hf_midrange import columns, figures
from hf_midrange.bands import LogitBands


@pytest.fixture(scope="module")
def ds():
    return images(300)


@pytest.fixture(scope="module")
def findings(ds):
    return hm.associate(ds)


def texts_of(figure):
    from matplotlib.text import Text

    return " ".join(each.get_text() for each in figure.findobj(Text))


def test_the_profile_is_that_of_the_finding(findings):
    row = findings[0]
    axes = figures.profile_figure(row).axes[0]
    for container, side in zip(axes.containers, ("member", "stranger"), strict=True):
        line, _, (bars,) = container.lines
        np.testing.assert_allclose(line.get_ydata(), row[f"{side}_profile"])
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends[:, 0], row[f"{side}_profile_low"], atol=1e-12)
        np.testing.assert_allclose(ends[:, 1], row[f"{side}_profile_high"], atol=1e-12)
    assert axes.get_title() == row["concept"]
    markers = [container.lines[0].get_marker() for container in axes.containers]
    assert len(set(markers)) == 2  # not by colour alone


def test_a_unit_without_members_has_one_line(findings):
    row = findings[0] | {"member_profile": None}
    assert len(figures.profile_figure(row).axes[0].containers) == 1


def test_distributions_count_every_row_and_shade_the_middle(ds):
    logits, bands, ids = columns.matrix(ds, "logits"), columns.matrix(ds, "band"), columns.labels(ds)
    figure = figures.distributions_figure(ds, ["class_2", 0])
    for axes, unit in zip(figure.axes, (2, 0), strict=True):
        heights = [patch.get_height() for patch in axes.containers[0]]
        assert sum(heights) == (ids == unit).sum()
        inside = logits[bands[:, unit] == 1, unit]
        shaded = axes.patches[-1].get_extents().transformed(axes.transData.inverted())
        assert (shaded.x0, shaded.x1) == pytest.approx((inside.min(), inside.max()), rel=1e-5)
    assert len(figures.distributions_figure(ds).axes) == 3


def test_groups_stand_at_their_accuracy(ds):
    labels, groups = columns.labels(ds), columns.labels(ds, "group")
    names = ds.features["group"].names
    wrong = np.where(groups == 0, (labels + 1) % 3, labels)
    scores = {
        "before": hm.group_metrics(wrong, labels, groups, group_names=names),
        "after": hm.group_metrics(labels, labels, groups, group_names=names),
    }
    axes = figures.groups_figure(scores).axes[0]
    for container, metrics in zip(axes.containers, scores.values(), strict=True):
        told = [each["accuracy"] for each in metrics["groups"].values()]
        np.testing.assert_allclose(container.lines[0].get_xdata(), told)
        ends = np.array([segment[:, 0] for segment in container.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends[:, 0], [each["ci_low"] for each in metrics["groups"].values()], atol=1e-12)
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    with pytest.raises(ValueError, match="no head"):
        figures.groups_figure({})


def test_similarities_are_cosines_sorted_by_label_and_concept(ds):
    figure = figures.similarity_figure(ds, ("tags", "tied"))
    shown = figure.axes[0].images[0].get_array()
    ids, words = columns.labels(ds), columns.vocabulary(ds.features, "concepts_tags")
    has = columns.presence(ds, "concepts_tags").toarray()[:, words.index("tied")]
    order = sorted(range(len(ds)), key=lambda row: (ids[row], has[row]))
    values = columns.matrix(ds, "embedding").astype(float)[order]
    values -= values.mean(axis=0)
    for i, j in [(0, 1), (5, 250), (120, 120), (299, 40)]:
        expected = values[i] @ values[j] / np.sqrt((values[i] @ values[i]) * (values[j] @ values[j]))
        assert shown[i, j] == pytest.approx(expected)
    said = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert said == [f"class_{k}, {w}" for k in range(3) for w in ("without", "with")]
    assert figures.similarity_figure(ds, rows=50).axes[0].images[0].get_array().shape == (50, 50)
    with pytest.raises(ValueError, match="no concept 'tide'"):
        figures.similarity_figure(ds, ("tags", "tide"))


def test_the_montage_climbs_the_range(ds):
    logits, ids = columns.matrix(ds, "logits")[:, 1], columns.labels(ds)
    figure = figures.montage_figure(ds, "class_1", steps=6, each=1)
    edges = np.linspace(logits.min(), logits.max(), 7)
    grid = np.array(figure.axes).reshape(2, 6)
    for side, member in enumerate((True, False)):
        for k in range(6):
            inside = (ids == 1) == member
            inside &= (logits >= edges[k]) & ((logits < edges[k + 1]) | (k == 5))
            axes = grid[side, k]
            assert bool(axes.images) == inside.any()
            if axes.images:
                row = int(axes.get_gid().removeprefix("row "))
                assert inside[row]
                np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(ds[row]["image"]))


def test_the_middle_has_a_panel_a_class(ds):
    figure = figures.range_figure(ds, units=2)
    assert "logit of class_1" in texts_of(figure)
    assert "logit of class_2" not in texts_of(figure)


def test_names_are_never_read_as_formulas(ds):
    row = hm.associate(ds)[0] | {"concept": r"$\frac{1}{0$ and $x_$", "unit_name": r"$\bad{$"}
    figure = figures.profile_figure(row | {"member_shape": "rising"})
    figure.savefig("/dev/null", format="png")
    groups = hm.group_metrics([0, 1], [0, 1], [0, 1], group_names=["$a_{$", "b"])
    figures.groups_figure({"$x^{$": groups}).savefig("/dev/null", format="png")
    named = ClassLabel(names=[r"$\bad{$", "$b_$", "c"])
    odd = columns.with_columns(ds, {"label": (columns.labels(ds), named)})
    for draw in (figures.range_figure, figures.distributions_figure, figures.similarity_figure):
        draw(odd).savefig("/dev/null", format="png", dpi=30)
    figures.montage_figure(odd, 0, steps=2).savefig("/dev/null", format="png", dpi=30)


def test_wrong_questions_are_answered(ds):
    with pytest.raises(ValueError, match="no unit 'dog'; the classes are"):
        figures.montage_figure(ds, "dog")
    with pytest.raises(KeyError, match=r"LogitBands\.transform"):
        figures.distributions_figure(ds.remove_columns("band"))


def test_pyplot_is_left_alone(ds):
    for name in [name for name in sys.modules if name.startswith("matplotlib.pyplot")]:
        pytest.skip(f"{name} was loaded by another test")
    figures.distributions_figure(ds, [0])
    assert "matplotlib.pyplot" not in sys.modules


def test_figures_follow_new_bands_and_heads(ds):
    wide = LogitBands(edges=(-0.5, 1.5)).fit(ds).transform(ds)
    span = [figures.distributions_figure(each, [0]).axes[0].patches[-1].get_extents().width for each in (ds, wide)]
    assert span[1] > span[0]
    assert head_of(ds).num_classes == 3
