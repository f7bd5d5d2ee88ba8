"""Make `report.png`, a picture of the report of what the demo wrote; needs the extra `browser` and Chromium.

hf-midrange demo && python model_cards/report_picture.py outputs/demo
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image


HERE = Path(__file__).parent
WIDTH, GAP = 900, 24


def picture(page_file: Path) -> Image.Image:
    """Return the first screen of a report: its verdict, its first shortcut, and what the repair does."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from support import browsing

    with browsing.browser() as started, browsing.opened(started, page_file, WIDTH) as seen:
        shots = [seen.page.locator(place).first.screenshot() for place in ("header", "#shortcut-1", "#groups")]
    parts = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    whole = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, ((WIDTH - part.width) // 2, top))
        top += part.height + GAP
    return whole


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that the demo wrote")
    demo = parser.parse_args().demo
    from datasets import load_from_disk

    import hf_midrange as hm
    from hf_midrange.association.findings import read_findings

    head = hm.LinearHead.from_pretrained(demo / "head")
    made = hm.report(load_from_disk(demo / "curated"), read_findings(demo / "findings"), head=head)
    with tempfile.TemporaryDirectory() as folder:
        shown = picture(made.save(folder))
    shown.quantize(128).save(HERE / "report.png", optimize=True)


if __name__ == "__main__":
    main()
