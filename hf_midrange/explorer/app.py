"""The explorer as a Gradio app: controls, pages of rows, and marks, wired to plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from hf_midrange.explorer.cards import Cards
from hf_midrange.explorer.index import PAGE, Choice, Having, Index, Jump
from hf_midrange.explorer.marks import MARKS, UNMARKED, Exports, Marks, in_space, marks_in
from hf_midrange.publishing.escaping import visible
from hf_midrange.reporting.rendering import render


ANY = -1
ALL, BREAKING, SUSPECTED, MARKED = "all", "breaking", "suspected", "marked"
HAVING = [
    ("with it or without", "either"),
    ("with it", "with"),
    ("without it", "without"),
    ("breaking the tie: members without it, strangers with it", "tie"),
]
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Options of every event: nothing here is an interface for programs."""


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


def build(index: Index, cards: Cards, exports: Exports) -> gr.Blocks:
    """Return the app; nothing of the rows is read before a page of them is shown."""
    jumps = index.jumps()
    start = jumps[0] if jumps else Jump("", Choice(level=index.middle_of(0)))
    with gr.Blocks(title="hf_midrange explorer", analytics_enabled=False, fill_width=True) as app:
        marks, page, shown = gr.State(first_marks(exports)), gr.State(0), gr.State([])
        gr.HTML(cards.title(), elem_classes="hm")
        with gr.Row():
            with gr.Column(scale=1, min_width=290):
                finding = _findings(jumps)
                filters = _filters(index, start)
                marked = gr.HTML(elem_classes="hm")
                _export_panel(exports, marks)
            with gr.Column(scale=3, min_width=320):
                unit, level, bands = _place(index, start.choice)
                along = gr.HTML(elem_classes="hm", elem_id="range")
                with gr.Row():
                    sides = [_side() for _ in range(2)]
                with gr.Row():
                    nearer = gr.Button("Nearer rows", size="sm")
                    farther = gr.Button("Farther rows", size="sm")
        controls = [unit, level, *filters]
        places = [slot for _, group in sides for slot in group]
        outputs = [along, *(heading for heading, _ in sides), shown, marked]
        outputs += [part for slot in places for part in slot]
        look = {
            "fn": partial(_look, index, cards),
            "inputs": [*controls, page, marks],
            "outputs": outputs,
            **QUIET,
        }
        app.load(**look)
        _wire_controls(index, jumps, finding, controls, bands, page, look)
        for button, step in ((nearer, -1), (farther, 1)):
            button.click(lambda at, by=step: max(0, at + by), page, page, **QUIET).then(**look)
        for number, slot in enumerate(places):
            mark = partial(_mark, cards, number)
            slot.mark.input(mark, [slot.mark, shown, marks], [marks, marked], **QUIET)
    return app


def first_marks(exports: Exports) -> Marks | dict[int, str]:
    """Return the marks to start with: in a Space a copy for each reader, else one for all pages of this reader."""
    given = marks_in(exports.ds)
    return given if in_space() else Marks(given)


def _side() -> tuple[gr.HTML, list[Slot]]:
    with gr.Column(min_width=320):
        heading = gr.HTML(elem_classes="hm")
        with gr.Row(elem_classes="slots"):
            return heading, [_slot() for _ in range(PAGE)]


def _slot() -> Slot:
    with gr.Column(elem_classes="slot", visible=False, min_width=100) as box:
        card = gr.HTML(elem_classes="hm")
        mark = gr.Radio(list(MARKS), value=UNMARKED, label="Mark", container=False)
    return Slot(box, card, mark)


def _findings(jumps: list[Jump]) -> gr.Radio:
    return gr.Radio(
        [(jump.title, number) for number, jump in enumerate(jumps)],
        value=0 if jumps else None,
        label="Shortcuts, then findings: choose one to go there" if jumps else "Nothing was found",
        elem_classes="list",
        elem_id="findings",
    )


def _filters(index: Index, start: Jump) -> list[Any]:
    breaking = (f"that break a shortcut ({len(index.breaking)})", BREAKING)
    suspected = (f"that may be mislabelled ({len(index.suspects)})", SUSPECTED)
    among = [("all", ALL), breaking, suspected, ("marked by you", MARKED)]
    labels = [("any", ANY), *((visible(name), k) for k, name in enumerate(index.classes))]
    concepts = [("any", ANY), *((visible(name), k) for k, name in enumerate(index.concepts))]
    chosen = _number(start.choice.concept)
    return [
        gr.Dropdown(labels, value=ANY, label="Label", elem_id="label"),
        gr.Dropdown(concepts, value=chosen, label="Concept", elem_id="concept"),
        gr.Radio(HAVING, value=start.choice.having, label="Rows by concept", elem_id="having", elem_classes="list"),
        gr.Radio(
            among,
            value=BREAKING if start.breaking else ALL,
            label="Of these, rows",
            elem_id="among",
            elem_classes="list",
        ),
    ]


def _place(index: Index, start: Choice) -> tuple[gr.Dropdown, gr.Slider, list[gr.Button]]:
    units = [(visible(name), k) for k, name in enumerate(index.units)]
    with gr.Row(equal_height=True):
        unit = gr.Dropdown(units, value=start.unit, label="Unit", elem_id="unit", scale=1)
        scale = index.scale(start.unit)
        level = gr.Slider(
            scale.low, scale.high, start.level, step=scale.step, label="Level on its range", elem_id="level", scale=2
        )
    with gr.Row():
        bands = [gr.Button(f"Middle of: {name}", size="sm", min_width=80) for name in index.bands]
    return unit, level, bands


def _wire_controls(
    index: Index,
    jumps: list[Jump],
    finding: gr.Radio,
    controls: list[Any],
    bands: list[gr.Button],
    page: gr.State,
    look: dict[str, Any],
) -> None:
    unit, level, *filters = controls
    # What is seen is no finding's place any more: none stays chosen, so that choosing it leads back there.
    first = {"fn": lambda: (0, None), "outputs": [page, finding], **QUIET}
    level.input(**first).then(**{**look, "trigger_mode": "always_last"})
    for each in filters:
        each.input(**first).then(**look)
    unit.input(partial(_to_unit, index), unit, level, **QUIET).then(**first).then(**look)
    for number, button in enumerate(bands):
        button.click(partial(index.middle_of, band=number), unit, level, **QUIET).then(**first).then(**look)
    finding.input(partial(_jump, index, jumps), finding, [*controls, page], **QUIET).then(**look)


def _slider(index: Index, unit: int, level: float) -> gr.Slider:
    scale = index.scale(unit)
    return gr.Slider(minimum=scale.low, maximum=scale.high, step=scale.step, value=level)


def _to_unit(index: Index, unit: int) -> gr.Slider:
    return _slider(index, unit, index.middle_of(unit))


def _jump(index: Index, jumps: list[Jump], number: int) -> list[Any]:
    choice, among = jumps[number].choice, BREAKING if jumps[number].breaking else ALL
    slider = _slider(index, choice.unit, choice.level)
    return [choice.unit, slider, ANY, _number(choice.concept), choice.having, among, 0]


def _look(
    index: Index,
    cards: Cards,
    unit: int,
    level: float,
    label: int,
    concept: int,
    having: Having,
    among: str,
    page: int,
    marks: dict[int, str],
) -> list[Any]:
    """Return what every output shows, given the values of the controls."""
    choice = Choice(unit, float(level), _chosen(label), _chosen(concept), having, page)
    some = {ALL: None, BREAKING: index.breaking, SUSPECTED: index.suspects, MARKED: marks}[among]
    heads, parts, rows = [], [], []
    for members in (True, False):
        found = index.side(choice, members, some)
        told, numbers = cards.rows(choice, found), found.rows.tolist()
        heads.append(cards.side(choice, found, members))
        parts += [Slot.showing(*pair, marks) for pair in zip(numbers, told, strict=True)]
        parts += [Slot.empty() for _ in range(PAGE - len(numbers))]
        rows += numbers + [None] * (PAGE - len(numbers))
    return [cards.range(choice), *heads, rows, cards.marked(marks), *(part for slot in parts for part in slot)]


def _chosen(number: int) -> int | None:
    return None if number == ANY else number


def _number(chosen: int | None) -> int:
    return ANY if chosen is None else chosen


def _mark(
    cards: Cards, number: int, mark: str, shown: list[int | None], marks: dict[int, str]
) -> tuple[dict[int, str], str]:
    """Return the marks with the one that was given to the row in a slot."""
    row = shown[number]
    if row is None or mark not in MARKS:
        return marks, cards.marked(marks)
    changed = marks if isinstance(marks, Marks) else Marks(marks)
    changed.give(row, mark)
    return changed, cards.marked(changed)


def _export_panel(exports: Exports, marks: gr.State) -> None:
    """Add the buttons and what they say."""
    if in_space():  # whoever opens the page would write to its disk, and publish with its token
        return
    options: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "export", "concurrency_limit": 1}
    status = gr.HTML(elem_classes="hm", elem_id="status")
    write = gr.Button("Write the edited data set", variant="primary", elem_id="export")
    write.click(lambda given: _say(lambda: exports.write(given)), marks, status, **options)
    if not exports.publishable:
        return
    with gr.Accordion("Publish", open=False):
        repo = gr.Textbox(label="Private data set on the Hub", placeholder="me/my-images-mid", elem_id="repo")
        push = gr.Button("Publish privately", elem_id="publish")
    push.click(lambda given, to: _say(lambda: exports.publish(given, to)), [marks, repo], status, **options)


def _say(act: Callable[[], str]) -> str:
    """Return what `act` says, or why it could not."""
    try:
        return _told(act())
    except (OSError, ValueError) as error:
        return _told(str(error), bad=True)


def _told(text: str, bad: bool = False) -> str:
    return render("status", "hf_midrange.explorer", text=text, bad=bad)
