"""What `scripts/train.py` and `scripts/debias.py` do: arguments from flags and a YAML file, then a trainer."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
)

from hf_midrange import columns
from hf_midrange.classifier import load_classifier, modality
from hf_midrange.commands.options import read_flags
from hf_midrange.io.datasets import pick_split, read_dataset
from hf_midrange.training.holdout import Holdout
from hf_midrange.training.trainer import MidRangeArguments, MidRangeTrainer


@dataclass
class ScriptArguments:
    """Where model and data are."""

    model: str = field(
        metadata={"help": "A folder or Hub id: to train a backbone or classifier, to debias a trained one."}
    )
    dataset: str = field(metadata={"help": "A saved dataset, an image folder, a file of rows, or a Hub id."})
    processor: str | None = field(default=None, metadata={"help": "Preprocessing, where not stored with the model."})
    train_split: str = field(default="train", metadata={"help": "The split to train on."})
    eval_split: str | None = field(
        default=None, metadata={"help": "The split to score on; by default `test`, else `validation`."}
    )
    curation_split: str | None = field(
        default=None, metadata={"help": "The split to debias on; by default the rows that were held out of training."}
    )


def parsed(words: Sequence[str]) -> tuple[ScriptArguments, MidRangeArguments]:
    """Return the arguments that flags give, over those of the file that `--config` names.

    Raises:
        ValueError: if the file is no mapping, or has a key that is no flag; near ones are named.
        SystemExit: as argparse does, for a wrong flag.
    """
    kinds: Any = (ScriptArguments, MidRangeArguments)
    reader = ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config", type=Path)
    found, typed = reader.parse_known_args(list(words))
    if found.config is not None:
        typed = [*_words(found.config, {part.name for kind in kinds for part in fields(kind)}), *typed]
    script, args = HfArgumentParser(kinds).parse_args_into_dataclasses(typed)
    return script, args


def train(
    script: ScriptArguments,
    args: MidRangeArguments,
    prepare: Callable[[Dataset, Any, MidRangeArguments], Dataset] | None = None,
) -> MidRangeTrainer:
    """Fine-tune a classifier, score it, and save it into `output_dir`; with `debias_after_training`, debias it too.

    Args:
        script: where model and data are.
        args: how to train.
        prepare: makes of the training rows what is trained on, given them, the processor and `args`, for scripts that
            augment; None: the rows as they are.

    Raises:
        ValueError: if a split is missing.
    """
    with args.main_process_first():
        data = _splits(script)
    rows = pick_split(data, script.train_split, script.dataset)
    model = _classifier_for(rows, script.model)
    curation = None if script.curation_split is None else pick_split(data, script.curation_split, script.dataset)
    if prepare is not None:
        rows = prepare(rows, _processor(model, script), args)
    trainer = _trainer(model, script, args, data, train_dataset=rows, curation_dataset=curation)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return _finished(trainer)


def debias(script: ScriptArguments, args: MidRangeArguments) -> MidRangeTrainer:
    """Debias a trained classifier, score it, and save it into `output_dir`.

    Raises:
        ValueError: if there is no `curation_split` and the model's folder does not say which rows were held out.
    """
    with args.main_process_first():
        data = _splits(script)
    model = load_classifier(script.model)
    trainer = _trainer(model, script, args, data, curation_dataset=_curation_rows(data, script))
    report = trainer.debias()
    if trainer.is_world_process_zero():
        print(report)  # noqa: T201 - what the script is for
    return _finished(trainer)


def _words(file: Path, known: set[str]) -> list[str]:
    words: list[str] = []
    for name, value in read_flags(file, known).items():
        if value is not None:
            words += [f"--{name}", *(str(part) for part in (value if isinstance(value, list) else [value]))]
    return words


def _splits(script: ScriptArguments) -> DatasetDict:
    data = read_dataset(script.dataset)
    return data if isinstance(data, DatasetDict) else DatasetDict({script.train_split: data})


def _classifier_for(rows: Dataset, name: str) -> nn.Module:
    """Return the model with a head for the classes of the rows: its own where it has as many, else a fresh one."""
    of_images = columns.IMAGE in rows.features
    kind: Any = AutoModelForImageClassification if of_images else AutoModelForSequenceClassification
    names = columns.class_label(rows.features).names
    return kind.from_pretrained(
        name,
        id2label=dict(enumerate(names)),
        label2id={label: k for k, label in enumerate(names)},
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
    )


def _trainer(
    model: nn.Module,
    script: ScriptArguments,
    args: MidRangeArguments,
    data: DatasetDict,
    **rows: Any,  # noqa: ANN401
) -> MidRangeTrainer:
    named = [script.eval_split] if script.eval_split else [name for name in ("test", "validation") if name in data]
    scored = pick_split(data, named[0], script.dataset) if named else None
    return MidRangeTrainer(model, args, eval_dataset=scored, processing_class=_processor(model, script), **rows)


def _processor(model: nn.Module, script: ScriptArguments) -> Any:  # noqa: ANN401 - a tokenizer or image processor
    auto = AutoTokenizer if modality(model) == "text" else AutoImageProcessor
    return auto.from_pretrained(script.processor or script.model, trust_remote_code=False)


def _curation_rows(data: DatasetDict, script: ScriptArguments) -> Dataset:
    if script.curation_split is not None:
        return pick_split(data, script.curation_split, script.dataset)
    holdout = Holdout.read(Path(script.model))
    if holdout is None:
        raise ValueError(
            f"{script.model} does not say which rows were held out of training; give a --curation_split that "
            "the model was not trained on"
        )
    rows = pick_split(data, script.train_split, script.dataset)
    if len(rows) != holdout.rows:
        raise ValueError(
            f"the model was trained on a split of {holdout.rows} rows, but {script.train_split!r} has {len(rows)}"
        )
    return rows.select(holdout.indices)


def _finished(trainer: MidRangeTrainer) -> MidRangeTrainer:
    if trainer.eval_dataset is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_model()
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return trainer
