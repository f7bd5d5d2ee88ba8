"""The demo's picture: what stands in its axes, against the data; never pixels."""

import numpy as np
import pytest
from datasets import ClassLabel
from support.report_material import images

from hf_midrange import columns
from hf_midrange.bands import LogitBands
from hf_midrange.demo.domino_trial import range_figure


@pytest.fixture(scope="module")
def ds():
    return images(300)


def texts_of(figure):
    from matplotlib.text import Text

    return " ".join(each.get_text() for each in figure.findobj(Text))


def shaded(axes):
    box = axes.patches[-1].get_extents().transformed(axes.transData.inverted())
    return box.x0, box.x1


def test_the_middle_has_a_panel_a_class(ds):
    said = texts_of(range_figure(ds, units=2))
    assert "logit of class_1" in said
    assert "logit of class_2" not in said


def test_the_distribution_counts_every_row_and_the_middle_is_shaded(ds):
    axes = range_figure(ds, units=1).axes[0]
    ids, bands, logits = columns.labels(ds), columns.matrix(ds, "band")[:, 0], columns.matrix(ds, "logits")[:, 0]
    assert sum(patch.get_height() for patch in axes.containers[0]) == (ids == 0).sum()
    inside = logits[bands == 1]
    assert shaded(axes) == pytest.approx((inside.min(), inside.max()), rel=1e-5)


@pytest.mark.parametrize(("bands", "middle"), [(2, []), (5, [1, 2, 3])])
def test_the_middle_is_every_band_but_the_lowest_and_the_highest(ds, bands, middle):
    found = LogitBands(n_bands=bands).fit(ds).transform(ds)
    figure = range_figure(found, units=1)
    band, member = columns.matrix(found, "band")[:, 0], columns.labels(found) == 0
    inside = np.isin(band, middle)
    said = texts_of(figure)
    assert f"class_0: {(member & inside).sum()} rows" in said
    assert f"class_0: {(member & (band == bands - 1)).sum()} rows" in said
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert ("mid band" in labels) == bool(middle)
    if middle:
        logits = columns.matrix(found, "logits")[inside, 0]
        assert shaded(figure.axes[0]) == pytest.approx((logits.min(), logits.max()), rel=1e-5)


def test_names_are_never_read_as_formulas(ds):
    named = ClassLabel(names=[r"$\bad{$", "$b_$", "c"])
    odd = columns.with_columns(ds, {"label": (columns.labels(ds), named)})
    range_figure(odd).savefig("/dev/null", format="png", dpi=30)


def test_bands_are_asked_for(ds):
    with pytest.raises(KeyError, match=r"LogitBands\.transform"):
        range_figure(ds.remove_columns("band"))
