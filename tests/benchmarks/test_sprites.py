"""Sprites: pixels against a brute force, shares of the tie, and the demonstration end to end."""

import json
import math
from importlib.resources import files

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_midrange.demo.sprite_images import POSITIONS, UNTIED, region_of, render, sprite_dataset


OUTLINE = json.loads((files("hf_midrange.demo") / "sprites_outline.json").read_text())


def _radius(values, turn):
    at = turn * (len(values) - 1)
    low = min(int(at), len(values) - 2)
    return values[low] + (at - low) * (values[low + 1] - values[low])


def _inside(shape, scale, orientation, pos_x, pos_y, row, column):
    angle, size = 2 * math.pi * orientation / 39, 0.5 + 0.1 * scale
    dx = column + 0.5 - (16 + 32 * pos_x / 31)
    dy = row + 0.5 - (16 + 32 * pos_y / 31)
    u = (math.cos(angle) * dx - math.sin(angle) * dy) / size
    v = (math.sin(angle) * dx + math.cos(angle) * dy) / size
    if shape == 0:
        return abs(u) <= OUTLINE["square_half_side"] and abs(v) <= OUTLINE["square_half_side"]
    if shape == 1:
        return math.hypot(u, v) <= _radius(
            OUTLINE["ellipse_polar_quarter"], math.atan2(abs(v), abs(u)) / (math.pi / 2)
        )
    return math.hypot(u, v) <= _radius(OUTLINE["heart_polar_half"], (math.atan2(v, abs(u)) + math.pi / 2) / math.pi)


def test_pixels_are_those_of_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    factors = np.stack([rng.integers(0, size, 12) for size in (3, 6, 40, 32, 32)])
    factors[0] = np.arange(12) % 3
    drawn = render(*factors)
    for image, row in zip(drawn, factors.T, strict=True):
        expected = [[255 * _inside(*row, i, j) for j in range(64)] for i in range(64)]
        np.testing.assert_array_equal(image, expected)


def test_position_moves_right_and_down():
    left, right, down = render([1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 31, 0], [0, 0, 31])
    centre = lambda image: np.argwhere(image).mean(axis=0) + 0.5  # noqa: E731
    np.testing.assert_allclose([centre(left), centre(right), centre(down)], [[16, 16], [16, 48], [48, 16]], atol=0.5)


def test_regions_have_ten_positions_each():
    assert np.bincount(region_of(np.arange(POSITIONS))).tolist() == [10, 10, 10, 2]


@pytest.mark.parametrize("tie", [0.9, UNTIED, 0.0])
def test_shares_are_those_asked_for(tie):
    ds = sprite_dataset(1500, tie, seed=1)
    label, region = np.array(ds["label"]), np.array(ds["region"])
    np.testing.assert_array_equal(region, region_of(ds["pos_x"]))
    np.testing.assert_array_equal(ds["group"], 4 * label + region)
    for shape in range(3):
        own = region[label == shape] == shape
        assert binomtest(int(own.sum()), len(own), tie).pvalue > 1e-4
        assert binomtest(len(own), len(ds), 1 / 3).pvalue > 1e-4


def test_images_are_drawn_from_their_factors_and_differ():
    ds = sprite_dataset(50, 0.5, seed=2)
    names = ("label", "scale", "orientation", "pos_x", "pos_y")
    drawn = render(*(np.array(ds[name]) for name in names))
    np.testing.assert_array_equal(np.stack([np.array(image) for image in ds["image"]]), drawn)
    assert len(set(zip(*(ds[name] for name in names), strict=True))) == 50
    assert sprite_dataset(50, 0.5, seed=2)["pos_x"] == ds["pos_x"]


def test_bad_factors_and_shares_are_named():
    with pytest.raises(ValueError, match="`scale` is 6 in row 1"):
        render([0, 0], [0, 6], [0, 0], [0, 0], [0, 0])
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        sprite_dataset(10, 1.5, 0)
    with pytest.raises(ValueError, match="`n` must lie"):
        sprite_dataset(0, 0.5, 0)


def test_demonstration_end_to_end(tmp_path, capsys):
    from hf_midrange.demo.sprites import QUICK_SIZES, run_sprites

    facts = run_sprites(1, tmp_path, quick=True)
    assert json.loads((tmp_path / "facts.json").read_text()) == facts
    assert (tmp_path / "sprites.png").stat().st_size > 10_000
    for neuron in ("square", "ellipse", "heart"):
        cells = [p for p in facts["positions"] if p["neuron"] == neuron]
        assert sum(p["rows"] for p in cells) == QUICK_SIZES["held out"]
        assert all(sum(p["regions"].values()) == p["rows"] for p in cells)
        logits = facts["mean_logits"][neuron]
        assert logits["own class, tied position"] > logits["other class, elsewhere"]
    assert "tied region" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("tie", [0.7, 0.8, 0.9, 0.95])
def test_the_tied_region_is_every_neurons_confounder(tie):
    import hf_midrange as hm
    from hf_midrange.demo.sprite_network import pixel_tensor, train_network

    drawn = sprite_dataset(8000, tie, seed=0)
    network = train_network(drawn.select(range(5000)), 50_000, seed=0)
    held_out = hm.extract(drawn.select(range(5000, 8000)), network, pixel_tensor)
    held_out = hm.annotate(held_out, [hm.Annotations(["region", "pos_y", "scale", "orientation"])])
    flagged = [row for row in hm.associate(held_out) if row["confounder"]]
    regions = {(row["unit_name"], row["concept"]) for row in flagged if row["concept"].startswith("region")}
    assert regions == {("square", "region=left"), ("ellipse", "region=middle"), ("heart", "region=right")}
    # The network does use size: large sprites raise "square". Nothing else that is not tied is flagged.
    others = {row["concept"] for row in flagged if not row["concept"].startswith("region")}
    assert all("scale" in concept for concept in others)
