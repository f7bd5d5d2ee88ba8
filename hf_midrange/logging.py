"""How much the package says, in the way of transformers and datasets: `hm.logging.set_verbosity("error")`."""

from __future__ import annotations

import logging
import os
import warnings


VARIABLE = "HF_MIDRANGE_VERBOSITY"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_PACKAGE = logging.getLogger(__package__)


def get_verbosity() -> int:
    """Return the level below which the package's log is silent, such as `logging.WARNING`."""
    return _PACKAGE.getEffectiveLevel()


def set_verbosity(level: str | int) -> None:
    """Say from which level on the package logs.

    The variable `HF_MIDRANGE_VERBOSITY` says the same from outside. Progress bars follow datasets' switches:
    `datasets.disable_progress_bars()`, `HF_DATASETS_DISABLE_PROGRESS_BARS`.

    Args:
        level: one of "debug", "info", "warning", "error", "critical", or a level of Python's `logging`.

    Raises:
        ValueError: if it is none of these.

    Examples:
        >>> set_verbosity("error")
        >>> get_verbosity() == logging.ERROR
        True
        >>> set_verbosity("warning")
    """
    if isinstance(level, str) and level.lower() not in LEVELS:
        raise ValueError(f"verbosity is one of {', '.join(LEVELS)}, not {level!r}")
    _PACKAGE.setLevel(LEVELS[level.lower()] if isinstance(level, str) else level)


def obey_environment() -> None:
    """Set the verbosity that the environment asks for, if it does; warn if there is no such level."""
    asked = os.environ.get(VARIABLE)
    if asked and asked.lower() not in LEVELS:
        warnings.warn(f"{VARIABLE} is {asked!r}, but should be one of {', '.join(LEVELS)}", stacklevel=3)
    elif asked:
        set_verbosity(asked)
