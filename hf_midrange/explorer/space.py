"""The folder of a Space that opens the explorer on one data set."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from datasets import Dataset
from huggingface_hub.utils import validate_repo_id

from hf_midrange import __version__
from hf_midrange.association.findings import save_findings
from hf_midrange.explorer.index import Index
from hf_midrange.explorer.opening import require_gradio
from hf_midrange.io.datasets import write_dataset
from hf_midrange.publishing.escaping import front_matter
from hf_midrange.reporting.rendering import render


DATA, FINDINGS = "rows", "findings"
_PACKAGE = "hf_midrange.explorer"


def write_space(ds: Dataset, findings: Dataset | None, repo_id: str, folder: Path) -> None:
    """Write README.md, app.py, requirements.txt, the rows and the findings into a folder that exists.

    Whoever opens the Space sees these rows; marks live as long as the page is open.

    Args:
        ds: one split, best what `curate` returned.
        findings: what `associate` returned for it.
        repo_id: of the Space, `namespace/name`.
        folder: where to write.

    Raises:
        ValueError: if the id is none, or rows and findings are not fit to be explored.
    """
    require_gradio()
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} names no owner; a Space is called namespace/name")
    Index(ds, findings)  # what would fail there fails here
    write_dataset(ds, folder / DATA)
    if findings is not None:
        save_findings(findings, folder / FINDINGS)
    about = {
        "title": repo_id.split("/")[1],
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "app_file": "app.py",
        "tags": ["hf_midrange"],
    }
    found = None if findings is None else FINDINGS
    readme = render("space", _PACKAGE, rows=len(ds), findings=found)
    texts = {
        "README.md": f"{front_matter(about)}\n{readme}\n",
        "app.py": render("app", _PACKAGE, data=DATA, findings=found) + "\n",
        "requirements.txt": f"hf-midrange[explore]=={__version__}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
