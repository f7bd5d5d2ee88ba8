"""An empty figure outside of pyplot, and the two sides' colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_midrange import columns


if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMBER, STRANGER = "#0072b2", "#d55e00"  # told apart by people who see few colours; also filled against outlined


def empty_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("figures need matplotlib: `pip install 'hf-midrange[demo]'`") from err
    return Figure(figsize=(width, height), layout="constrained")


def unit_of(ds: Dataset, unit: int | str) -> int:
    """Return the number of a class that is given by number or name.

    Raises:
        ValueError: if there is no such class.
    """
    names = columns.class_label(ds.features).names
    if isinstance(unit, str) and unit in names:
        return names.index(unit)
    if isinstance(unit, int) and 0 <= unit < len(names):
        return unit
    raise ValueError(f"there is no unit {unit!r}; the classes are {names}")


def bare(axes: Any) -> None:  # noqa: ANN401 - matplotlib Axes
    """Take away the frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """Return text in which a dollar sign starts no formula."""
    return str(text).replace("$", r"\$")
