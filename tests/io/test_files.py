"""JSON back to objects, each value checked against its declared type."""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_midrange.io.files import from_json


@dataclass(frozen=True)
class Cut:
    at: float
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Cuts:
    count: int
    cuts: tuple[Cut, ...]
    given: bool = False
    extra: Any = None

    def __post_init__(self):
        if self.count < 0:
            raise ValueError("there are no negative counts")


@given(st.lists(st.floats(allow_nan=False), max_size=20))
def test_a_dataclass_comes_back_bit_for_bit(numbers):
    made = Cuts(len(numbers), tuple(Cut(number, ("a", "b")) for number in numbers), extra={"any": [1, None]})
    found = from_json(Cuts, json.loads(json.dumps(asdict(made))))
    assert found == made
    assert [struct.pack("d", cut.at) for cut in found.cuts] == [struct.pack("d", number) for number in numbers]


def test_whole_numbers_are_taken_where_floats_are_declared():
    assert from_json(Cut, {"at": 3}) == Cut(3.0)
    assert from_json(tuple[str, ...] | None, ["a"], "names") == ("a",)
    assert from_json(tuple[str, ...] | None, None, "names") is None


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"count": "3", "cuts": []}, "'count': .*integer"),
        ({"count": True, "cuts": []}, "'count': .*integer"),
        ({"count": 1.5, "cuts": []}, "'count': .*integer"),
        ({"count": 1, "cuts": [{"at": "1"}]}, "'cuts.0.at': .*number"),
        ({"count": 1, "cuts": [{"at": 1, "names": "ab"}]}, "'cuts.0.names': "),
        ({"count": 1, "cuts": {}}, "'cuts': "),
        ({"cuts": []}, "'count': .*required"),
        ({"count": 1, "cuts": [], "more": 1}, "Cuts has no field 'more'"),
        ({"count": -1, "cuts": []}, "there are no negative counts"),
        ([], "Input should be"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_field(plain, message):
    with pytest.raises(ValueError, match=message):
        from_json(Cuts, plain)
