"""Places for rows on the page: as many as a page has, filled anew for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr

from hf_midrange.explorer.marks import MARKS, UNMARKED


class Slot(NamedTuple):
    """One place."""

    box: Any
    card: Any
    mark: Any

    @classmethod
    def showing(cls, row: int, card: str, marks: Mapping[int, str]) -> Slot:
        """Return what a place becomes that shows a row."""
        mark = gr.Radio(value=marks.get(row, UNMARKED), label=f"Mark of row {row}")
        return cls(gr.Column(visible=True), card, mark)

    @classmethod
    def empty(cls) -> Slot:
        """Return what a place becomes that shows nothing."""
        return cls(gr.Column(visible=False), "", gr.Radio(value=UNMARKED))


def slots(number: int) -> list[Slot]:
    """Return so many places beside each other."""
    with gr.Row(elem_classes="slots"):
        return [_slot() for _ in range(number)]


def _slot() -> Slot:
    with gr.Column(elem_classes="slot", visible=False, min_width=100) as box:
        card = gr.HTML(elem_classes="hm")
        mark = gr.Radio(list(MARKS), value=UNMARKED, label="Mark", container=False)
    return Slot(box, card, mark)
