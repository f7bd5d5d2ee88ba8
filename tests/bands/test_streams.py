"""Bands of streams and of the shards of an extraction."""

import numpy as np
import pytest
from support.banded_rows import dataset, rows

from hf_midrange import columns
from hf_midrange.bands import LogitBands


RULES = ["class-relative", "quantile", "range", "std", "edges"]


def bands(rule):
    return LogitBands(rule, (0.0, 1.5) if rule == "edges" else None)


def stream_of(ds, shards=3):
    return ds.to_iterable_dataset(num_shards=shards)


@pytest.mark.parametrize("rule", RULES)
def test_a_short_stream_is_fitted_as_the_dataset_is(rule):
    ds = rows(n=1000)
    assert bands(rule).fit(stream_of(ds)) == bands(rule).fit(ds)


def test_of_a_long_stream_rows_are_drawn_from_everywhere(monkeypatch):
    monkeypatch.setattr("hf_midrange.bands.fitting.MOST_ROWS", 2000)
    monkeypatch.setattr("hf_midrange.bands.fitting.BATCH_VALUES", 1)  # 256 rows a batch
    ds = rows(n=30_000, classes=2)
    rising = columns.matrix(ds, "logits") + np.linspace(0, 40, 30_000, dtype=np.float32)[:, None]
    ds = dataset(rising, ds["label"][:], ["c0", "c1"])
    fitted = LogitBands("quantile").fit(stream_of(ds), seed=3)
    for k, unit in enumerate(fitted.fitted):
        ranks = np.searchsorted(np.sort(rising[:, k]), unit.cuts) / len(ds)
        # Four standard errors of a quantile of 2,000 rows.
        np.testing.assert_allclose(ranks, [1 / 3, 2 / 3], atol=4 * np.sqrt(2 / 9 / 2000))
    assert LogitBands("quantile").fit(stream_of(ds), seed=3) == fitted
    assert LogitBands("quantile").fit(stream_of(ds), seed=4) != fitted


def test_streams_that_cannot_be_fitted_are_refused():
    ds = rows()
    with pytest.raises(ValueError, match="no rows"):
        LogitBands().fit(stream_of(ds).take(0))
    with pytest.raises(KeyError, match="'label'"):
        LogitBands().fit(stream_of(ds.remove_columns("label")))
    with pytest.raises(TypeError, match="must hold a vector"):
        LogitBands("quantile", units="label").fit(stream_of(ds))
    values = columns.matrix(ds, "logits").copy()
    values[217, 1] = np.nan
    with pytest.raises(ValueError, match=r"\[217\]"):
        LogitBands().fit(stream_of(dataset(values, ds["label"][:], ["c0", "c1", "c2"])))
    unknown = stream_of(ds).map(lambda row: row)
    with pytest.raises(ValueError, match="ds.cast"):
        LogitBands().fit(unknown)


def test_a_class_that_is_not_drawn_is_named(monkeypatch):
    monkeypatch.setattr("hf_midrange.bands.fitting.MOST_ROWS", 50)
    values, ids = columns.matrix(rows(n=5000), "logits"), np.arange(5000) % 2
    ids[17] = 2
    with pytest.raises(ValueError, match=r"'c2' \(0 rows\)"):
        LogitBands().fit(stream_of(dataset(values, ids, ["c0", "c1", "c2"])))
