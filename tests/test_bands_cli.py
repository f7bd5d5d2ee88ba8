"""`hf-midrange bands` and `scripts/bands.py` take the options of `LogitBands`."""

import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_from_disk
from test_bands import rows
from test_bands_auto import simulated

from hf_midrange.bands import LogitBands
from hf_midrange.cli import main


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


def test_the_script_searches_the_middle_with_its_seed(tmp_path):
    ds = simulated(n=400, window=(0.25, 0.75))
    ds.save_to_disk(tmp_path / "rows")
    script = Path(__file__).parent.parent / "scripts" / "bands.py"
    words = [str(tmp_path / "rows"), "--output", str(tmp_path / "out"), "--rule", "auto", "--seed", "5"]
    subprocess.run([sys.executable, str(script), *words], check=True, timeout=120)
    assert LogitBands.from_pretrained(tmp_path / "out" / "bands") == LogitBands("auto").fit(ds, seed=5)
