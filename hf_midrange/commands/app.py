"""The command line: one command a step, each the package function of the same name with a dataset read and written."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from inspect import signature
from typing import Annotated, TextIO

import typer

from hf_midrange import __version__
from hf_midrange.commands.check import check
from hf_midrange.commands.env import env
from hf_midrange.commands.outputs import Command
from hf_midrange.commands.pages import demo, explore, publish, report
from hf_midrange.commands.run import evaluate, run
from hf_midrange.commands.steps import annotate, associate, bands, curate, extract, retrain
from hf_midrange.io.folders import AlreadyFinishedError


INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended: 128 + SIGINT."""

app = typer.Typer(
    help="Find the shortcuts a classifier learnt in the middle of its logits, and repair its head.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
STEPS = (extract, bands, annotate, associate, curate, retrain, evaluate)
for step in (*STEPS, run, demo, publish, report, explore, check, env):
    app.command(cls=Command)(step)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        typer.echo(f"hf-midrange {__version__}")
        raise typer.Exit


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv` (by default that of the process) and exit.

    Bad usage exits 2. What the package refuses (`ValueError`, `KeyError`, `TypeError`) and what the machine refuses
    (`OSError`: a missing file, a full disk; `MemoryError`) is one line on standard error and exit 1. Ctrl-C exits 130.
    The very same command, once it has finished, does nothing. Any other exception is a bug and keeps its traceback.
    """
    _speak()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # the context puts the old one back
            app(args=argv, prog_name="hf-midrange")
    except AlreadyFinishedError as finished:
        typer.echo(f"{finished}; --overwrite does it again")
    except (ValueError, KeyError, TypeError, OSError) as error:
        _say("error", _told(error), "red")
        sys.exit(1)
    except MemoryError as error:
        _say("error", f"out of memory ({error}); what is finished is kept: give more, or fewer rows at once", "red")
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        typer.echo("\ninterrupted: what is finished is kept, and the same command goes on from there", err=True)
        sys.exit(INTERRUPTED)


def _speak() -> None:
    """Print what a long command is doing, a line a step; bars are for terminals, and none is for copying files."""
    import datasets

    datasets.disable_progress_bars()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    steps = logging.getLogger("hf_midrange.steps")
    steps.setLevel(logging.INFO)
    steps.handlers = [logging.StreamHandler()]


def _told(error: Exception) -> str:
    """Return what an error says, with flags in place of the arguments of functions."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    flags = {name for command in app.registered_commands for name in signature(command.callback or main).parameters}

    def flag(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"] or ""
        return f"--{name.replace('_', '-')} {value}".strip() if name in flags else found[0]

    said = re.sub(r"`?\b(?P<name>[a-z_]+)=(['\"]?)(?P<value>[\w-]*)\2`?", flag, said)
    return said.replace(" with `rename_column`", "")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say("warning", message, "yellow")


def _say(kind: str, message: object, colour: str) -> None:
    typer.secho(f"{kind}: {' '.join(str(message).split())}", fg=colour, err=True)


if __name__ == "__main__":
    main()
