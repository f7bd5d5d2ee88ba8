"""`explore`: the rows of one data set in a browser, on this machine or as a Space."""

from __future__ import annotations

import builtins
import secrets
import sys
import webbrowser
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from datasets import Dataset
from huggingface_hub.utils import validate_repo_id

from hf_midrange import __version__, columns
from hf_midrange.association.findings import save_findings
from hf_midrange.explorer.cards import Cards
from hf_midrange.explorer.guard import Guard
from hf_midrange.explorer.index import Index
from hf_midrange.io.datasets import write_dataset
from hf_midrange.publishing.escaping import front_matter
from hf_midrange.reporting.rendering import render


if TYPE_CHECKING:
    import gradio as gr

DATA, FINDINGS = "rows", "findings"
"""Folders in a Space."""
_PACKAGE = "hf_midrange.explorer"


def explore(
    ds: Dataset,
    findings: Dataset | None = None,
    *,
    output_dir: str | Path = "explored",
    port: int | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> gr.Blocks:
    """Open an app to look at rows along a unit's range, members and strangers one above the other, and to mark them.

    Rows are shown a page at a time and only these are read, so that 100,000 are no more work than 100. What marks do
    to the rows is told at `explorer.edited`. The app asks nothing of any other machine, unless rows are published;
    it listens on this machine alone, and only to whoever has its address, which ends in a token. In a notebook it
    shows in the cell.

    Args:
        ds: one split, best what `curate` returned: with `label`, `logits`, perhaps `band`, `concepts_<source>`, and
            `image` or `text`.
        findings: what `associate` returned for these rows, to jump to.
        output_dir: where the button writes the edited rows, as `load_from_disk` reads them.
        port: of the server; None: the first free one from 7860.
        open_browser: open the page in the browser of this machine.
        block: in a script, return only when the app is stopped.

    Returns:
        The running app; its `close()` stops it, and its `local_url` is the address with the token.

    Raises:
        ModuleNotFoundError: if gradio is not installed.
        KeyError, TypeError, ValueError: if columns are missing or of another kind, the findings are of other rows, or
            `output_dir` holds the very rows that are explored.

    Examples:
        >>> hm.explore(curated, findings)     # doctest: +SKIP
    """
    require_gradio()
    import gradio as gr
    from starlette.middleware import Middleware

    from hf_midrange.explorer.app import build
    from hf_midrange.explorer.marks import Exports, in_space

    if columns.KEEP in ds.column_names:
        columns.require(ds, columns.WEIGHT)  # marks change both
    exports = Exports(ds, findings, Path(output_dir))
    exports.refuse_own_folder()
    index = Index(ds, findings)
    app: Any = build(index, Cards(ds, index), exports)
    system = ["system-ui", "sans-serif"]  # Gradio's own fonts would be asked of another machine
    token = "" if in_space() else secrets.token_urlsafe(24)  # a Space is called by a name that others choose
    app.launch(
        server_name="127.0.0.1" if token else None,
        server_port=port,
        inline=False,
        prevent_thread_lock=True,
        quiet=True,
        theme=gr.themes.Default(font=system, font_mono=["ui-monospace", "monospace"]),
        css=files(_PACKAGE).joinpath("templates/explorer.css").read_text(encoding="utf-8"),
        footer_links=[],
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,  # it would keep what was shown in the browser's storage
        app_kwargs={"middleware": [Middleware(Guard, token=token)]},
    )
    app.local_url = f"{app.local_url}{token}/" if token else app.local_url
    _show(app.local_url, open_browser)
    typer.echo(f"the explorer runs at {app.local_url} until it is stopped (Ctrl-C)")
    if block and not hasattr(sys, "ps1"):  # a prompt goes on while the app runs
        app.block_thread()
    return app


def _show(url: str, open_browser: bool) -> None:
    """Show the page in the cell of a notebook, and in the browser if that is wanted."""
    shell = getattr(builtins, "get_ipython", None)  # set where IPython runs
    if shell is not None and hasattr(shell(), "kernel"):
        from IPython.display import IFrame, display

        display(IFrame(url, "100%", 800))
    if open_browser:
        webbrowser.open(url)


def require_gradio() -> None:
    """Raise `ModuleNotFoundError` that says how to get gradio, where it is missing."""
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the explorer needs gradio: pip install 'hf-midrange[explore]'") from error


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
