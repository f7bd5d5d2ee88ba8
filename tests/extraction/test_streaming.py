"""Streams: a run that goes on reads on from where it stood, and parts of a stream are extracted apart."""

import json

import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import READ, Killed, network, pixels, stream

import hf_midrange as hm


def extracted(data, folder, model=None, **options):
    options = {"batch_size": 2, "shard_size": 4, "run_id": "the same rows", **options}
    return hm.extract(data, model or network(), pixels, output_dir=folder, **options)


def rows_of(result):
    return [(row["label"], row["prediction"], *np.asarray(row["logits"], dtype=np.float32).tolist()) for row in result]


def killed(data, folder, passes, **options):
    with pytest.raises(Killed):
        extracted(data, folder, network(passes), **options)


def positions(folder):
    found = [json.loads(path.read_text())["position"] for path in folder.glob("shard-*.json")]
    return [position for position in found if position is not None]


def test_a_run_that_goes_on_reads_from_the_last_finished_shard_on(tmp_path):
    data = stream(10, 10, 10, 10)
    expected = rows_of(extracted(data, tmp_path / "whole"))
    killed(data, tmp_path / "broken", passes=13)  # shards of two passes: six are finished, rows 0 to 23
    READ.clear()
    result = extracted(data, tmp_path / "broken")
    # Of the file it was in, the third, the source counts rows again; the first two are never opened.
    assert READ == list(range(20, 40))
    assert rows_of(result) == expected


def test_a_finished_stream_is_not_read_again(tmp_path):
    for rows in ((8, 8), (8, 9)):
        data = stream(*rows)
        expected = rows_of(extracted(data, tmp_path / str(rows)))
        READ.clear()
        result = extracted(data, tmp_path / str(rows))
        assert set(READ) <= set(range(8, sum(rows)))  # the last file, to see that it ends
        assert rows_of(result) == expected


@settings(max_examples=15)
@given(
    files=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(sum),
    batch_size=st.integers(1, 5),
    shard_size=st.integers(1, 7),
    passes=st.integers(0, 12),
)
def test_wherever_it_dies_the_rows_are_those_of_an_undisturbed_run(
    files, batch_size, shard_size, passes, tmp_path_factory
):
    folder, sizes = tmp_path_factory.mktemp("run"), {"batch_size": batch_size, "shard_size": shard_size}
    data = stream(*files)
    expected = rows_of(extracted(data, folder / "whole", **sizes))
    assert [row[0] for row in expected] == [row % 3 for row in range(sum(files))]
    try:
        extracted(data, folder / "broken", network(passes), **sizes)
    except Killed:
        pass
    finished = len(list((folder / "broken").glob("shard-*.arrow"))) * shard_size
    READ.clear()
    result = extracted(data, folder / "broken", **sizes)
    ends = np.cumsum(files)
    # The file with the last finished row is opened again, even if that row is its last.
    assert min(READ, default=ends[-1]) >= min(first for first, end in zip(ends - files, ends, strict=True)
                                              if end >= min(finished, ends[-1]))  # fmt: skip
    assert rows_of(result) == expected


def test_a_damaged_shard_is_computed_again_and_what_follows_it_read_again(tmp_path):
    data = stream(10, 10, 10)
    expected = rows_of(extracted(data, tmp_path))
    with (tmp_path / "shard-000003.arrow").open("r+b") as file:
        file.seek(-40, 2)
        file.write(b"damaged!")
    READ.clear()
    result = extracted(data, tmp_path)
    assert min(READ) == 10  # row 12 is the first of the shard, in the second file
    assert rows_of(result) == expected


def test_the_buffer_of_a_shuffled_stream_is_not_skipped(tmp_path):
    data = stream(10, 10, 10).shuffle(seed=3, buffer_size=7)
    expected = rows_of(extracted(data, tmp_path / "whole"))
    assert sorted(row[0] for row in expected) == sorted(row % 3 for row in range(30))
    killed(data, tmp_path / "broken", passes=9)
    assert positions(tmp_path / "broken") == []
    assert rows_of(extracted(data, tmp_path / "broken")) == expected


def test_overwriting_forgets_the_positions_too(tmp_path):
    extracted(stream(10, 10), tmp_path)
    result = extracted(stream(3, 4), tmp_path, run_id="other rows", overwrite=True)
    assert [row[0] for row in rows_of(result)] == [row % 3 for row in range(7)]
    assert len(positions(tmp_path)) == len(list(tmp_path.glob("*.arrow"))) == 2


@pytest.mark.parametrize("files", [(6, 5, 4, 7), (5, 9, 3)], ids=["files divide", "rows divide"])
def test_parts_of_a_stream_hold_every_row_once(files, tmp_path):
    data = stream(*files)
    whole = rows_of(extracted(data, tmp_path / "whole"))
    parts = []
    for rank in range(2):
        part = split_dataset_by_node(data, rank, 2)
        READ.clear()
        parts += rows_of(extracted(part, tmp_path / str(rank), run_id=f"part {rank}"))
        if len(files) % 2 == 0:
            own = [row for k, first in enumerate(np.cumsum((0, *files))[:-1]) if k % 2 == rank
                   for row in range(first, first + files[k])]  # fmt: skip
            assert set(READ) == set(own)  # the files of the other are never opened
    assert sorted(parts) == sorted(whole)


def test_a_node_without_a_shared_disk_needs_its_part_of_a_stream(tmp_path):
    with pytest.raises(ValueError, match="split_dataset_by_node"):
        extracted(stream(4), tmp_path, shared=False)
