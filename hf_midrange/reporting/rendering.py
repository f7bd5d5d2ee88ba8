"""From facts to HTML: one page without scripts, and a short form for notebooks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hf_midrange.publishing.escaping import LONGEST_TEXT, shortened, visible
from hf_midrange.reporting import drawing


MOST_GROUPS = 100
"""Rows of a table of groups; `report.json` has all."""


def page(facts: Mapping[str, Any], images: Mapping[int | str, str]) -> str:
    """Return the whole report; `images` are data URIs by row, or by the name of a mean."""
    safe = {row: Markup(uri) for row, uri in images.items()}  # base64 of our own making
    return render("report", facts=facts, images=safe, draw=drawing, most=MOST_GROUPS)


def summary(facts: Mapping[str, Any]) -> str:
    """Return the report in a few lines, as a notebook shows it."""
    return render("summary", facts=facts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Return a table of text, the first cell of each row being its name, with lines below, as a notebook shows it."""
    return render("table", header=header, rows=rows, notes=notes)


def render(name: str, package: str = "hf_midrange.reporting", **told: Any) -> str:  # noqa: ANN401 - what it shows
    """Return a template of a package filled in; whatever it shows is escaped, and what is invisible is spelt out."""
    return _environment(package).get_template(f"{name}.html.jinja").render(**told)


@lru_cache(maxsize=4)
def _environment(package: str) -> Environment:
    made = Environment(
        loader=PackageLoader(package),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_shown,  # every expression passes here: no template can forget to spell out what is invisible
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {each.__name__: each for each in (percent, figure, chance, interval, as_json, counted)}
    made.filters["name"] = shortened
    return made


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever a template may say
    return value if isinstance(value, Markup) else visible(shortened(str(value), LONGEST_TEXT))


def percent(share: float) -> str:
    """Return a share as a percentage with one digit."""
    return f"{100 * share:.1f} %"


def figure(value: float | None) -> str:
    """Return a figure with three significant digits; a dash for one that is not known.

    >>> figure(0.12345), figure(float("inf")), figure(None)
    ('0.123', '∞', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "-∞") if math.isinf(value) else f"{value:.3g}"


def chance(p: float | None) -> str:
    r"""Return a p- or q-value; the smallest are not spelt out.

    >>> chance(1e-30), chance(0.0312)
    ('<\xa00.0001', '0.031')
    """
    if p is None or math.isnan(p):
        return "–"
    return "<\xa00.0001" if p < 1e-4 else f"{p:.2g}"


def interval(metrics: Mapping[str, float]) -> str:
    """Return a group's accuracy in percent with its interval."""
    return f"{100 * metrics['accuracy']:.1f} % ({100 * metrics['ci_low']:.0f} to {100 * metrics['ci_high']:.0f})"


def as_json(value: Any) -> str:  # noqa: ANN401 - anything JSON holds
    """Return a value as JSON, in ASCII."""
    return json.dumps(value)


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number of things.

    >>> counted(1, "row"), counted(2, "row"), counted(2, "class", "classes")
    ('1 row', '2 rows', '2 classes')
    """
    return f"{number} {thing if number == 1 else things or thing + 's'}"
