"""The metadata block of a card, and the results in the two forms that the Hub reads."""

from __future__ import annotations

import re
from typing import Any

import yaml

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


def of_dataset(facts: DatasetFacts) -> dict[str, Any]:
    """Return the metadata of a data set's card; `dataset_info` and `configs` are what `load_dataset` reads."""
    total = max((split.rows for config in facts.configs[:1] for split in config.splits), default=0)
    return _known(
        {
            **licence_metadata(facts.licence),
            "task_categories": [facts.task],
            "source_datasets": list(facts.sources),
            "size_categories": [size_category(total)],
            "tags": [LIBRARY_TAG, "spurious-correlations", "debiasing"],
            "dataset_info": [_info(config) for config in facts.configs],
            "configs": [_config(config, first=config is facts.configs[0]) for config in facts.configs],
        }
    )


def of_model(facts: ModelFacts) -> dict[str, Any]:
    """Return the metadata of a model's card, with its results as `model-index`."""
    return _known(
        {
            **licence_metadata(facts.licence),
            "base_model": facts.base_model,
            "base_model_relation": "adapter" if facts.head_only else "finetune" if facts.base_model else None,
            "library_name": LIBRARY_TAG if facts.head_only else "transformers",
            "pipeline_tag": facts.task,
            "datasets": list(dict.fromkeys(d for d in (facts.curated, facts.dataset) if d)),
            "metrics": ["accuracy"] if facts.score else None,
            "tags": [LIBRARY_TAG, *(("spurious-correlations", "debiasing") if facts.corrected else ())],
            "model-index": _model_index(facts) if facts.score else None,
        }
    )


def eval_results(facts: ModelFacts) -> dict[str, str]:
    """Return path in the repository -> YAML of the model's results, in the Hub's per-benchmark form.

    That form names a data set on the Hub; without one there is nothing to write.
    """
    if facts.score is None or facts.dataset is None:
        return {}
    benchmark = _known({"id": facts.dataset, "revision": facts.dataset_revision})
    entries = [
        {"dataset": {**benchmark, "task_id": task}, "value": value, "notes": f"split {facts.split}"}
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
    if facts.dataset_revision:
        measured["revision"] = facts.dataset_revision
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


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [])}
