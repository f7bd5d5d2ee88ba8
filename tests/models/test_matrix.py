"""Every classifier of transformers' auto mappings, and one of every timm family, goes the whole way or is refused.

`python tests/models/test_matrix.py` writes the page of results, `docs/models.md`, which the tests compare with.
"""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import timm
import torch


sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from tiny import MOST_OF_TIMM, built, classes, families  # noqa: E402
from way import Trial, inputs_by_hand, logits_by_hand, processor_of, refused, reloaded, travel  # noqa: E402


PAGE = Path(__file__).parents[2] / "docs" / "models.md"

REFUSED = {
    "eurobert.EuroBertForSequenceClassification": "a head pooled afterwards has no single embedding",
    "timm.efficientvim": "are a learned mean of four heads': no linear layer gives them",
    "timm.volo": "are its head's with half of the largest of another head's added: no linear layer gives them",
}
"""What is refused, and with which words."""

TIMM, TRANSFORMERS = list(families().items()), classes()
PART, SIDE = 12, 128
"""Models a test; side in pixels of the images for timm models that take any."""


def of_transformers(entries: list[tuple[str, str, str]], folder: Path) -> list[Trial]:
    """Return the trials of some of transformers' classes; those that cannot be built say why."""
    trials = []
    for task, kind, name in entries:

        def works(model, task=task):
            return logits_by_hand(model, inputs_by_hand(task, model, processor_of(task, model)))

        try:
            model = built(kind, name, works)
        except Exception as error:
            trials.append(Trial(f"{kind}.{name}", name, note=f"not built: {refused(error)}"))
            continue
        trials.append(travel(f"{kind}.{name}", name, task, model, folder / f"{kind}.{name}"))
    return finished(trials, folder)


def of_timm(entries: list[tuple[str, tuple[str, dict]]], folder: Path) -> list[Trial]:
    """Return the trials of one model of some timm families."""
    trials = []
    for module, (name, settings) in entries:
        torch.manual_seed(0)
        try:
            model = timm.create_model(name, num_classes=3, **settings).eval()
            size = sum(parameter.numel() for parameter in model.parameters())
            if size > MOST_OF_TIMM:
                raise ValueError(f"{name} has {size:,} parameters")
            make_quick(model)
        except Exception as error:
            trials.append(Trial(f"timm.{module}", name, note=f"not built: {refused(error)}"))
            continue
        trials.append(travel(f"timm.{module}", name, "image", model, folder / f"timm.{module}", settings))
    return finished(trials, folder)


def make_quick(model: torch.nn.Module) -> None:
    """Let a timm model take small images if it can; raise what its forward raises at its own size."""
    own = model.pretrained_cfg
    if not own.get("fixed_input_size") and own["input_size"][-1] > SIDE:
        model.pretrained_cfg = {**own, "min_input_size": (3, SIDE, SIDE)}
        try:
            logits_by_hand(model, inputs_by_hand("image", model, processor_of("image", model)))
            return
        except Exception:
            model.pretrained_cfg = own
    logits_by_hand(model, inputs_by_hand("image", model, processor_of("image", model)))


def finished(trials: list[Trial], folder: Path) -> list[Trial]:
    """Return the trials with what a process without the package found."""
    found = reloaded(folder)
    return [trial._replace(reload=found.get(trial.key, "")) for trial in trials]


def is_built(trial: Trial) -> bool:
    return not trial.note.startswith("not built")


def failed(trials: list[Trial]) -> list[Trial]:
    """Return the trials that neither went the whole way nor were refused as they should be."""
    return [
        trial
        for trial in trials
        if (trial.extract or trial.merge or trial.reload) and not _is_refused(trial)
    ]  # fmt: skip


def _is_refused(trial: Trial) -> bool:
    return trial.extract.startswith("ValueError: ") and REFUSED.get(trial.key, "nothing") in trial.extract


def parts(entries: list) -> list[list]:
    return [entries[start : start + PART] for start in range(0, len(entries), PART)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "entries"),
    [(of_transformers, part) for part in parts(TRANSFORMERS)] + [(of_timm, part) for part in parts(TIMM)],
    ids=[f"{entries[0][1]}-" for entries in parts(TRANSFORMERS)] + [f"timm-{part[0][0]}-" for part in parts(TIMM)],
)
def test_every_model_comes_back_as_it_was_repaired_or_is_refused_by_name(of, entries, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trials = of(entries, tmp_path)
    assert failed(trials) == []
    said = PAGE.read_text()
    stale = [trial for trial in trials if is_built(trial) and line(trial) not in said]
    assert stale == [], "run `python tests/models/test_matrix.py` and read what has changed"


def line(trial: Trial) -> str:
    """Return a trial's row of the page."""
    steps = [trial.extract or "ok", trial.merge or ("-" if trial.extract else "ok")]
    steps.append(trial.reload or ("-" if trial.extract or trial.merge else "ok"))
    name = f"{trial.key} ({trial.model})" if trial.key.startswith("timm.") else trial.key
    return f"| {name} | {' | '.join(step.replace('|', '/') for step in steps)} | {trial.note} |"


def page(trials: list[Trial]) -> str:
    """Return the page of results."""
    went = [trial for trial in trials if is_built(trial)]
    whole = [trial for trial in went if not (trial.extract or trial.merge or trial.reload)]
    of_timm = sum(trial.key.startswith("timm.") for trial in went)
    head = f"""# Which classifiers go the whole way

Made by `tests/models/test_matrix.py` with tiny models from their configurations, random weights, on a CPU in float32:
`extract` against the model's own logits; a new head merged by `merge_into` against the head's; `save_pretrained` and
`from_pretrained` (timm: `create_model` and `load_state_dict`) in a process where this package cannot be imported.
All to 1e-5 of the logits' size. {len(whole)} of {len(went)} models go the whole way, {len(went) - of_timm} of the
classes in the two auto mappings of transformers and {of_timm} families of timm; the others are refused before anything
is written. Those at the end were not built here.

| model | extract | merge | reload | |
|---|---|---|---|---|
"""
    lines = [line(trial) for trial in went]
    lines += ["", "Not built:", ""]
    lines += [f"- {trial.key}: {trial.note.removeprefix('not built: ')}" for trial in trials if trial not in went]
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found: list[Trial] = []
    for of, entries in ((of_transformers, TRANSFORMERS), (of_timm, TIMM)):
        for part in parts(entries):
            with TemporaryDirectory() as made:
                found += of(part, Path(made))
            print(len(found), [trial.key for trial in failed(found)], flush=True)  # noqa: T201
    PAGE.write_text(page(found))
