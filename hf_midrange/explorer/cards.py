"""What is shown of one row: a small picture or its text, and what is known of it. Only rows on the page are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from markupsafe import Markup
from PIL import Image

from hf_midrange import columns
from hf_midrange.explorer.index import PAGE, Choice, Index, Rows
from hf_midrange.explorer.marks import told
from hf_midrange.reporting import drawing
from hf_midrange.reporting.examples import data_uri, marked, phrase_of
from hf_midrange.reporting.inputs import TEXTS
from hf_midrange.reporting.rendering import render


SIDE, QUALITY = 160, 80
"""Longest side of a picture in pixels, and how well it is kept, 0..100."""

LISTED = 50
"""Marks that are listed."""

_TOLD = (*TEXTS, columns.PREDICTION, columns.KEEP, columns.WEIGHT, columns.REASON)


class Cards:
    """Rows as HTML, with everything that comes from the data escaped."""

    def __init__(self, ds: Dataset, index: Index) -> None:
        """Show rows of `ds`, which `index` was made of."""
        self._index = index
        self._told = ds.select_columns([name for name in _TOLD if name in ds.column_names])
        self._images = ds.select_columns([columns.IMAGE]) if columns.IMAGE in ds.column_names else None

    def rows(self, choice: Choice, found: Rows) -> list[str]:
        """Return one card for each row of a page."""
        known = self._told[found.rows.tolist()] if self._told.column_names and len(found.rows) else {}
        return [self._card(choice, found, i, {name: known[name][i] for name in known}) for i in range(len(found.rows))]

    def title(self) -> str:
        """Return the heading of the page."""
        return _render("title", rows=self._index.size, classes=len(self._index.classes))

    def marked(self, marks: Mapping[int, str]) -> str:
        """Return which rows are marked, the last marked ones first."""
        latest = list(marks.items())[::-1]
        return _render("marked", marks=latest[:LISTED], more=max(0, len(latest) - LISTED), counted=told(marks))

    def side(self, choice: Choice, found: Rows, members: bool) -> str:
        """Return the heading of a side: whose rows these are and how many there are."""
        unit, is_class = self._index.units[choice.unit], self._index.is_class(choice.unit)
        first, shown = choice.page * PAGE + 1, len(found.rows)
        return _render(
            "side", unit=unit, is_class=is_class, members=members, total=found.total, first=first, shown=shown
        )

    def range(self, choice: Choice) -> str:
        """Return the picture of the unit's range with the level in it, and the level in words."""
        index, unit, level = self._index, choice.unit, choice.level
        return _render(
            "range",
            picture=drawing.distribution(index.distribution(unit), unit, level),
            unit=index.units[unit],
            is_class=index.is_class(unit),
            level=f"{level:.{index.scale(unit).digits}f}",
            below=index.share_below(unit, level),
            band=index.band_at(unit, level),
        )

    def _card(self, choice: Choice, found: Rows, i: int, known: dict[str, Any]) -> str:
        index, row, band = self._index, int(found.rows[i]), int(found.bands[i])
        has = None if found.has is None else bool(found.has[i])
        concept = "" if choice.concept is None else index.concepts[choice.concept].split(": ", 1)[1]
        phrase = phrase_of(concept) if has else ""
        said = known.get(columns.PREDICTION)
        return _render(
            "card",
            row=row,
            label=index.classes[index.ids[row]],
            looks_like=index.suspects.get(row),
            prediction=None if said is None else index.classes[said],
            value=float(found.values[i]),
            band=index.bands[band] if band >= 0 else None,
            concept=concept,
            has=has,
            texts=[marked(str(known[name] or ""), phrase) for name in TEXTS if name in known],
            picture=None if self._images is None else self._picture(row),
            has_images=self._images is not None,
            keep=known.get(columns.KEEP),
            weight=known.get(columns.WEIGHT),
            reason=known.get(columns.REASON),
        )

    def _picture(self, row: int) -> Markup | None:
        """Return a small picture as a data URI; None for one that is missing or cannot be read."""
        try:
            image = self._images[row][columns.IMAGE]  # type: ignore[index]
            if image is None:
                return None
            return Markup(data_uri(image.convert("RGB"), SIDE, QUALITY))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


def _render(name: str, **told: Any) -> str:  # noqa: ANN401 - whatever the template says
    return render(name, "hf_midrange.explorer", **told)
