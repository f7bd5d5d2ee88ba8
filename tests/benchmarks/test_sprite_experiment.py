"""The published sprite experiment: its data's sizes and shares, its network's shapes, and that cells are kept."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "sprites"))

import experiment  # noqa: E402
import sprite_cells  # noqa: E402
from sprite_cells import Cells, Size  # noqa: E402
from sprite_draws import drawn, is_tied, region, tied_set  # noqa: E402
from sprite_training import PublishedNetwork, trained  # noqa: E402


def test_the_ranges_hold_29_of_96_combinations():
    shape, pos_x = (part.ravel() for part in np.mgrid[:3, :32])
    factors = np.stack([shape, shape, shape, pos_x, pos_x])
    assert is_tied(factors).sum() == 29
    assert np.bincount(region(np.arange(32))).tolist() == [10, 10, 9, 3]


@pytest.mark.parametrize("tenths", range(11))
def test_sizes_are_the_published_ones_in_proportion(tenths):
    """The authors' 5,640 tied sprites give these sizes; ours are as many more as there are tied ones more."""
    published = [5640, 6266, 7050, 8057, 9400, 11280, 9400, 8057, 7050, 6266, 5640]
    draw = drawn(3, 19_000, 10, 10)
    kept = tied_set(draw.train, tenths / 10, seed=3)
    assert kept.shape[1] / is_tied(draw.train).sum() == pytest.approx(published[tenths] / 5640, rel=1e-3)
    share = tenths / 10 + (1 - tenths / 10) * 29 / 96
    assert is_tied(kept).mean() == pytest.approx(share, abs=0.03)


def test_no_sprite_is_in_two_parts_of_a_draw():
    parts = drawn(0, 4000, 500, 1500)
    assert [part.shape for part in parts] == [(5, 4000), (5, 500), (5, 1500)]
    assert np.unique(np.concatenate(parts, axis=1), axis=1).shape[1] == 6000


def test_the_network_has_the_published_shapes():
    network = PublishedNetwork()
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 2704), (84, 120), (84, 84), (3, 84)]
    assert network.eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 3)
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in network.body) == 5


def test_training_repeats_itself_and_learns():
    factors = drawn(1, 400, 1, 1).train
    first, again = (trained(factors, 0, epochs=2, batch=100) for _ in range(2))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_cells_are_kept_and_reported(tmp_path, monkeypatch, capsys):
    tiny = Size(train=600, test=60, held_out=900, epochs=2)
    monkeypatch.setattr(experiment, "QUICK", tiny)
    words = ["--quick", "--ties", "0.9", "0.5", "--cells", str(tmp_path / "cells"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["experiment.py", *words, "--seeds", "0"])
    experiment.main()
    facts = json.loads((tmp_path / "out.json").read_text())
    assert [run["tie"] for run in facts] == [0.5, 0.9]
    rows = {name: sum(p["rows"] for p in facts[0]["positions"] if p["neuron"] == name) for name in ("square", "heart")}
    assert len(set(rows.values())) == 1
    assert facts[1]["tied_share"] == pytest.approx(0.93, abs=0.03)
    table = (tmp_path / "out.md").read_text()
    assert "| 87.9 | 91.8 |" in table  # what is published of tie level .5
    assert (tmp_path / "out.png").stat().st_size > 10_000
    monkeypatch.setattr(sprite_cells, "measured", lambda *_: pytest.fail("a finished cell was run again"))
    experiment.main()
    assert Cells(tmp_path / "cells", tiny._replace(epochs=3)).facts(0.9, 0) is None
    monkeypatch.setattr(sys, "argv", ["experiment.py", "--ties", "90"])
    with pytest.raises(SystemExit):
        experiment.main()
    assert "between 0 and 1" in capsys.readouterr().err
