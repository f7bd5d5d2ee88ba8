"""Cards, rendered from facts alone: no network, no model, no clock."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hf_midrange.publishing import metadata
from hf_midrange.publishing.escaping import LONGEST_TEXT, Markup, front_matter, markdown, shortened
from hf_midrange.publishing.facts import DatasetFacts, ModelFacts, Score


def dataset_card(facts: DatasetFacts) -> str:
    """Return the README of a published data set, its metadata block included."""
    body = _environment().get_template("dataset_card.md.jinja").render(facts=facts)
    return front_matter(metadata.of_dataset(facts)) + body


def model_card(facts: ModelFacts) -> str:
    """Return the README of a published model or head, its metadata block included."""
    body = _environment().get_template("model_card.md.jinja").render(facts=facts)
    return front_matter(metadata.of_model(facts)) + body


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hf_midrange.publishing"),
        undefined=StrictUndefined,
        finalize=_shown,  # every expression passes here, so that no template can forget to escape
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "figure": figure, "accuracy": accuracy, "code": code}
    environment.filters["name"] = shortened
    return environment


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever a template may say
    return str(value) if isinstance(value, Markup) else markdown(shortened(str(value), LONGEST_TEXT))


def code(name: str) -> Markup:
    """Return an id or name to stand inside a block of code.

    Raises:
        ValueError: if it holds more than letters, digits and `_ . / -`, which could end a string or the block.
    """
    if not re.fullmatch(r"[\w./-]+", name):
        raise ValueError(f"{name!r} cannot stand in the code of a card; letters, digits and _ . / - can")
    return Markup(name)


def percent(share: float) -> str:
    """Return a share as a percentage with one digit."""
    return f"{100 * share:.1f} %"


def figure(value: float | None) -> str:
    """Return a figure with three significant digits, or a dash for one that is not known."""
    return Markup("–") if value is None else f"{value:.3g}"


def accuracy(score: Score, which: str) -> str:
    """Return `mean` or `worst_group` of a score in percent, with its interval or its spread over seeds."""
    value = 100 * getattr(score, which)
    interval, sd = getattr(score, f"{which}_ci"), getattr(score, f"{which}_sd")
    if interval is not None:
        return f"{value:.1f} % ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{value:.1f} %" if sd is None else f"{value:.1f} ± {100 * sd:.1f} %"
