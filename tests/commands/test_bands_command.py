"""`hf-midrange bands` and `scripts/bands.py` take the options of `LogitBands`."""


import pytest
from datasets import load_from_disk
from support.banded_rows import rows

from hf_midrange.bands import LogitBands
from hf_midrange.commands.app import main


@pytest.mark.parametrize("options", [{"n_bands": 10}, {"rule": "quantile", "units": "embedding", "n_bands": 4}])
def test_bands_command_fits_and_saves(tmp_path, options):
    ds = rows()
    ds = ds.add_column("embedding", ds["logits"][:], feature=ds.features["logits"])
    ds.save_to_disk(tmp_path / "rows")
    flags = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(SystemExit, match="^0$"):
        main(["bands", str(tmp_path / "rows"), "--output", str(tmp_path / "out"), *flags])
    expected = LogitBands(**options).fit(ds)
    assert LogitBands.from_pretrained(tmp_path / "out" / "bands") == expected
    assert load_from_disk(tmp_path / "out")["band"][:] == expected.transform(ds)["band"][:]
