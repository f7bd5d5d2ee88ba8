"""JSON back to objects, each value checked against its declared type."""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_midrange.io.files import from_json, read_json, to_json


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


def test_a_file_says_its_format_and_others_are_refused(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text(to_json({"a": 1}))
    assert json.loads(path.read_text()) == {"format": 1, "a": 1}
    assert read_json(path, "file of facts", "write it again") == {"a": 1}
    path.write_text(json.dumps({"a": 1, "checksum": "of 0.1.0"}))  # which wrote no format
    assert read_json(path, "file of facts", "write it again") == {"a": 1}
    path.write_text(to_json({"a": 1}, number=3))
    with pytest.raises(ValueError, match=r"facts\.json is a file of facts of format 3; .* upgrade hf_midrange"):
        read_json(path, "file of facts", "write it again", reads=(1, 2))
    path.write_text(to_json({"a": 1}, number=1))
    with pytest.raises(ValueError, match="of format 1; this version reads format 2; write it again"):
        read_json(path, "file of facts", "write it again", reads=(2,))
