"""Every column of the findings: what it is, in which unit and range, and which rows it comes from."""

from __future__ import annotations

from typing import NamedTuple

from datasets import Features, List, Value


RANGE = "range"
"""What a finding over the whole range has for a band."""

_DISCOVERY, _CONFIRMATION, _ALL, _DATA = "discovery half", "confirmation half", "all rows", "the data set"


class Column(NamedTuple):
    """What a column of the findings holds."""

    meaning: str
    values: str
    """Unit and range."""
    rows: str
    """Which rows it comes from."""
    dtype: str = "float64"
    """Of the value, or of each entry of a list."""
    is_list: bool = False


def _side(whose: str) -> dict[str, Column]:
    """Return the columns of one side; its prevalence and shifts are within labels."""
    odds = f"odds ratio of band and concept among {whose}; over the whole range, the odds of standing above"
    return {
        "odds_ratio": Column(odds, "0 to infinity", _CONFIRMATION),
        "ci_low": Column("lower 95 % limit of it", "0 to infinity", _CONFIRMATION),
        "ci_high": Column("upper 95 % limit of it", "0 to infinity", _CONFIRMATION),
        "p": Column(f"two-sided p-value of no association among {whose}", "0 to 1", _CONFIRMATION),
        "profile": Column(
            "prevalence of the concept in fifths of each label's range", "0 to 1", _CONFIRMATION, is_list=True
        ),
        "profile_low": Column("lower 95 % limits of it", "0 to 1", _CONFIRMATION, is_list=True),
        "profile_high": Column("upper 95 % limits of it", "0 to 1", _CONFIRMATION, is_list=True),
        "shape": Column(
            "what the profile looks like", "rising, falling, humped, dipped, flat", _CONFIRMATION, "string"
        ),
        "auc": Column(
            "chance that a row with the concept stands above one without, same label", "0 to 1", _CONFIRMATION
        ),
    }


COLUMNS: dict[str, Column] = {
    "unit": Column("number of the unit", "from 0", _DATA, "int32"),
    "unit_name": Column("its name: that of its class, if it has one", "text", _DATA, "string"),
    "band": Column("the band, or `range` for what only the whole range shows", "text", _DATA, "string"),
    "source": Column("the source of the concept", "text", _DATA, "string"),
    "concept": Column("the concept", "text", _DATA, "string"),
    "odds_ratio": Column("oriented odds ratio: above 1 is confounded with the class", "0 to infinity", _CONFIRMATION),
    "ci_low": Column("lower 95 % limit of it", "0 to infinity", _CONFIRMATION),
    "ci_high": Column("upper 95 % limit of it", "0 to infinity", _CONFIRMATION),
    "p_value": Column("two-sided p-value of no association within labels", "0 to 1", _DISCOVERY),
    "q_value": Column("the same, adjusted over all tests (Benjamini-Hochberg)", "0 to 1", _DISCOVERY),
    "q_confirm": Column(
        "p-value of an odds ratio from 0.8 to 1.25, adjusted over what was discovered", "0 to 1", _CONFIRMATION
    ),
    "confirmed": Column(
        "it is surely above 1.25, or below 0.8, and on the same side again", "yes or no", _CONFIRMATION, "bool"
    ),
    "confounder": Column("a confirmed cue with an odds ratio above 1", "yes or no", _CONFIRMATION, "bool"),
    "derived": Column("computed from the embedding: p-values are no evidence", "yes or no", _DATA, "bool"),
    "reading": Column("what the whole range shows", "cue, one-sided, hardness, none", _CONFIRMATION, "string"),
    "rests_on": Column(
        "what the reading rests on", "association, association and tie, members alone, nothing yet", _ALL, "string"
    ),
    "tie": Column("odds ratio of being a member with the concept against without", "above 0", _ALL),
    "broken_by": Column("members without the concept and strangers with it", "rows", _ALL, "int64"),
    "group": Column("the most significant of the concepts that say the same", "text", _ALL, "string"),
    "p_at_top": Column("p-value of the same concept in the top band alone", "0 to 1", _DISCOVERY),
    "p_beyond_top": Column("one-sided p-value, by permutation, that the top shows less", "0 to 1", _CONFIRMATION),
    "odds_ratio_discovery": Column("the odds ratio where it was found: too large", "0 to infinity", _DISCOVERY),
    "power": Column("chance to confirm an odds ratio of 3 at level alpha", "0 to 1", _CONFIRMATION),
    "effective_rows": Column("independent rows that say as much as these", "rows", _CONFIRMATION),
    "rows_set_aside": Column("rows left out because their label looks wrong", "rows", _CONFIRMATION, "int64"),
    **{f"member_{name}": column for name, column in _side("members of the class").items()},
    **{f"stranger_{name}": column for name, column in _side("rows of other classes").items()},
}

FEATURES = Features(
    {name: List(Value(one.dtype)) if one.is_list else Value(one.dtype) for name, one in COLUMNS.items()}
)
"""The columns of the findings."""


def findings_schema() -> dict[str, dict[str, str]]:
    """Return for every column of the findings its `dtype`, `values` (unit and range), `rows` and `meaning`.

    Examples:
        >>> findings_schema()["q_confirm"]["rows"]
        'confirmation half'
    """
    return {
        name: {"dtype": str(FEATURES[name]), "values": one.values, "rows": one.rows, "meaning": one.meaning}
        for name, one in COLUMNS.items()
    }
