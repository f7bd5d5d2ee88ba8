"""Cards and the results beside them, rendered from facts alone: no network, no model, no clock."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from hf_midrange.publishing.escaping import LONGEST_TEXT, Markup, front_matter, markdown, shortened
from hf_midrange.publishing.facts import ConfigFacts, DatasetFacts, ModelFacts, Score


LIBRARY_TAG = "hf_midrange"
LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsl-1.0 c-uda cc "
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 "
    "etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 "
    "llama3.1 llama3.2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl "
    "postgresql unknown unlicense wtfpl zlib".split()
)
"""Words that the Hub takes as `license`; huggingface_hub has no list of them."""
METRICS = {"mean": ("accuracy", "Accuracy"), "worst_group": ("worst_group_accuracy", "Worst-group accuracy")}


def dataset_card(facts: DatasetFacts) -> str:
    """Return the README of a published data set, its metadata block included."""
    body = _environment().get_template("dataset_card.md.jinja").render(facts=facts)
    return front_matter(_dataset_metadata(facts)) + body


def model_card(facts: ModelFacts) -> str:
    """Return the README of a published model or head, its metadata block included."""
    body = _environment().get_template("model_card.md.jinja").render(facts=facts)
    return front_matter(_model_metadata(facts)) + body


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


def _dataset_metadata(facts: DatasetFacts) -> dict[str, Any]:
    """Return the metadata block; `dataset_info` and `configs` are what `load_dataset` reads."""
    total = max((split.rows for config in facts.configs[:1] for split in config.splits), default=0)
    return _known(
        {
            **licence_metadata(facts.licence),
            "pretty_name": facts.repo_id.rpartition("/")[2].replace("-", " ").replace("_", " ").capitalize(),
            "task_categories": [facts.task],
            "source_datasets": list(facts.sources),
            "size_categories": [size_category(total)],
            "tags": [LIBRARY_TAG, f"library:{LIBRARY_TAG}", "spurious-correlations", "debiasing"],
            "dataset_info": [_info(config) for config in facts.configs],
            "configs": [_config(config, first=config is facts.configs[0]) for config in facts.configs],
        }
    )


def _model_metadata(facts: ModelFacts) -> dict[str, Any]:
    """Return the metadata block, with the results as `model-index`."""
    return _known(
        {
            **licence_metadata(facts.licence),
            "base_model": facts.base_model,
            "base_model_relation": _relation(facts),
            "library_name": facts.library,
            "pipeline_tag": facts.task,
            "language": facts.language,
            "datasets": list(dict.fromkeys(d for d in (facts.curated, facts.dataset) if d)),
            "metrics": ["accuracy"] if facts.score else None,
            "tags": [LIBRARY_TAG, *(("spurious-correlations", "debiasing") if facts.corrected else ()), *facts.tags],
            "model-index": _model_index(facts) if facts.score else None,
        }
    )


def write_model_card(facts: ModelFacts, folder: Path) -> None:
    """Write README.md and, where a Hub data set is named, the results beside it."""
    for path, text in {"README.md": model_card(facts), **eval_results(facts)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def eval_results(facts: ModelFacts) -> dict[str, str]:
    """Return path in the repository -> YAML of the model's results, in the Hub's per-benchmark form.

    That form names a data set on the Hub; without one there is nothing to write.
    """
    if facts.score is None or facts.dataset is None:
        return {}
    entries = [
        {"dataset": {"id": facts.dataset, "task_id": task}, "value": value, "notes": f"split {facts.split}"}
        for task, _, value in _results(facts.score)
    ]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", facts.dataset)
    return {f".eval_results/{name}.yaml": yaml.safe_dump(entries, sort_keys=False)}


def licence_metadata(licence: str | None) -> dict[str, str]:
    """Return the metadata of a licence: the Hub refuses a `license` it does not know, so others go by `license_name`.

    >>> licence_metadata("CC-BY-4.0"), licence_metadata("ask us")
    ({'license': 'cc-by-4.0'}, {'license': 'other', 'license_name': 'ask-us'})
    """
    if not licence:
        return {}
    plain = licence.strip().lower()
    if plain in LICENCES:
        return {"license": plain}
    name = re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-")[:64]
    return {"license": "other", **({"license_name": name} if name else {})}


def size_category(rows: int) -> str:
    """Return the Hub's word for a number of rows, such as `1K<n<10K`."""
    limits = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    for k, limit in enumerate(limits):
        if rows < 1000 * 10**k:
            return f"n<{limit}" if k == 0 else f"{limits[k - 1]}<n<{limit}"
    return "n>1B"


def _results(score: Score) -> list[tuple[str, str, float]]:
    return [(kind, name, round(float(getattr(score, key)), 6)) for key, (kind, name) in METRICS.items()]


def _model_index(facts: ModelFacts) -> list[dict[str, Any]]:
    assert facts.score is not None
    measured = {"type": facts.dataset or "held-out", "name": facts.dataset or "held-out rows", "split": facts.split}
    metrics = [{"type": kind, "value": value, "name": name} for kind, name, value in _results(facts.score)]
    task = {"type": facts.task, "name": facts.task.replace("-", " ").capitalize()}
    return [{"name": facts.repo_id, "results": [{"task": task, "dataset": measured, "metrics": metrics}]}]


def _info(config: ConfigFacts) -> dict[str, Any]:
    size = sum(split.size for split in config.splits)
    splits = [{"name": s.name, "num_bytes": s.size, "num_examples": s.rows} for s in config.splits]
    return {
        "config_name": config.name,
        "features": config.features,
        "splits": splits,
        "download_size": size,
        "dataset_size": size,
    }


def _config(config: ConfigFacts, first: bool) -> dict[str, Any]:
    files = [{"split": split.name, "path": f"{config.folder}/{split.name}-*"} for split in config.splits]
    return {"config_name": config.name, "data_files": files, **({"default": True} if first else {})}


def _relation(facts: ModelFacts) -> str | None:
    if facts.base_model is None:
        return None
    return "finetune" if facts.library == "transformers" else "adapter"


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [])}
