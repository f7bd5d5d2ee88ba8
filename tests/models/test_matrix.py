"""Every classifier of transformers' auto mappings and one of every timm family goes the whole way.

`python tests/models/test_matrix.py` writes the page of results, `docs/models.md`.
"""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import timm
import torch


sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from tiny import MOST, built, classes, families  # noqa: E402
from way import Trial, inputs_by_hand, logits_by_hand, processor_of, refused, reloaded, travel  # noqa: E402


PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def of_transformers(folder: Path) -> list[Trial]:
    """Return the trials of transformers' classes, those that cannot be built left out."""
    trials = []
    for task, kind, name in classes():

        def works(model, task=task):
            return logits_by_hand(model, inputs_by_hand(task, model, processor_of(task, model)))

        try:
            model = built(kind, name, works)
        except Exception as error:
            trials.append(Trial(f"{kind}.{name}", name, note=f"not built: {refused(error)}"))
            continue
        trials.append(travel(f"{kind}.{name}", name, task, model, folder / f"{kind}.{name}"))
    return trials


def of_timm(folder: Path) -> list[Trial]:
    """Return the trials of one model of every timm family."""
    trials = []
    for module, name in families().items():
        torch.manual_seed(0)
        try:
            model = timm.create_model(name, num_classes=3).eval()
            if sum(parameter.numel() for parameter in model.parameters()) > MOST:
                raise ValueError(f"{name} has more than {MOST:,} parameters")
            logits_by_hand(model, inputs_by_hand("image", model, processor_of("image", model)))
        except Exception as error:
            trials.append(Trial(f"timm.{module}", name, note=f"not built: {refused(error)}"))
            continue
        trials.append(travel(f"timm.{module}", name, "image", model, folder / f"timm.{module}"))
    return trials


def finished(trials: list[Trial], folder: Path) -> list[Trial]:
    """Return the trials with what a process without the package found."""
    found = reloaded(folder)
    return [trial._replace(reload=found.get(trial.key, "")) for trial in trials]


def failed(trials: list[Trial]) -> list[Trial]:
    """Return the trials that ended in other logits or an unexplained error: a refusal with its reason is none."""
    said = [[trial.extract, trial.merge, trial.reload] for trial in trials]
    return [
        trial
        for trial, steps in zip(trials, said, strict=True)
        if any(step and not step.startswith("ValueError: ") for step in steps)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [of_transformers, of_timm])
def test_every_model_comes_back_as_it_was_repaired_or_is_refused(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trials = finished(kind(tmp_path), tmp_path)
    assert sum(not (trial.note.startswith("not built") or trial.extract) for trial in trials) > 50
    assert failed(trials) == []


def page(trials: list[Trial]) -> str:
    """Return the page of results."""
    went = [trial for trial in trials if not trial.note.startswith("not built")]
    whole = [trial for trial in went if not (trial.extract or trial.merge or trial.reload)]
    head = f"""# Which classifiers go the whole way

Made by `tests/models/test_matrix.py` with tiny models from their configurations, random weights, on a CPU in float32:
`extract` against the model's own logits; a new head merged by `merge_into` against the head's; `save_pretrained` and
`from_pretrained` (timm: `create_model` and `load_state_dict`) in a process where this package cannot be imported.
All to 1e-5 of the logits' size. {len(whole)} of {len(went)} models go the whole way; those at the end were not
built here.

| model | extract | merge | reload | |
|---|---|---|---|---|
"""
    lines = []
    for trial in went:
        steps = [trial.extract or "ok", trial.merge or ("-" if trial.extract else "ok")]
        steps.append(trial.reload or ("-" if trial.extract or trial.merge else "ok"))
        lines.append(f"| {trial.key} | {' | '.join(step.replace('|', '/') for step in steps)} | {trial.note} |")
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
    for of in (of_transformers, of_timm):
        with TemporaryDirectory() as made:
            found += finished(of(Path(made)), Path(made))
        PAGE.write_text(page(found))
