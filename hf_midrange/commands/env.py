"""`env`: what a bug report should say of the machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version

import typer
from packaging.requirements import Requirement

from hf_midrange import __version__


def env() -> None:
    """Print versions and the accelerator, for a bug report; nothing of yours is in it."""
    typer.echo(f"hf-midrange {__version__}, Python {platform.python_version()}, {platform.platform()}")
    needed = (Requirement(one) for one in requires("hf-midrange") or ())
    names = sorted({one.name for one in needed if one.name != "hf-midrange" and not _only_develops(one)})
    typer.echo("\n".join(f"{name} {_version(name)}" for name in names))
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    typer.echo(f"accelerator: {accelerator or 'none'}, {torch.get_num_threads()} threads")


def _only_develops(one: Requirement) -> bool:
    return any(f'"{extra}"' in str(one.marker) for extra in ("dev", "test", "docs", "browser"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
