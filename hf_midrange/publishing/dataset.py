"""`publish_dataset`: a curated data set that explains itself, in one commit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml
from datasets import Dataset, DatasetDict, Features
from huggingface_hub import CommitInfo

from hf_midrange import columns
from hf_midrange.association.findings import provenance
from hf_midrange.io.folders import scratch_folder
from hf_midrange.publishing import gather
from hf_midrange.publishing.cards import dataset_card
from hf_midrange.publishing.commit import commit, files_in
from hf_midrange.publishing.facts import ConfigFacts, DatasetFacts, SplitFacts
from hf_midrange.publishing.long_form import BANDS, long_features, long_tables, units_that_matter
from hf_midrange.publishing.metadata import LIBRARY_TAG
from hf_midrange.publishing.parquet import batches, write_shards
from hf_midrange.publishing.patience import PublishError
from hf_midrange.publishing.splits import common_features, recoded
from hf_midrange.publishing.target import State, Target, open_target


if TYPE_CHECKING:
    from hf_midrange.bands import LogitBands

FOLDERS = {"default": "data", "long": "long", "findings": "findings"}
PROVENANCE = "findings.json"
MAX_SHARD_BYTES = 500_000_000
_BY_CURATE = (columns.PSEUDO_GROUP, columns.KEEP, columns.WEIGHT, columns.CONFOUNDERS, columns.REASON)
_NEEDED = (columns.LABEL, columns.LOGITS, *_BY_CURATE)


@dataclass(frozen=True)
class Content:
    """What is published: named splits, what was found on them, and where they come from."""

    splits: Mapping[str, Dataset]
    findings: Dataset | None = None
    bands: LogitBands | None = None
    source: str | None = None
    license: str | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES


def publish_dataset(
    curated: Dataset | DatasetDict,
    repo_id: str,
    *,
    findings: Dataset | None = None,
    bands: LogitBands | None = None,
    source: str | None = None,
    license: str | None = None,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> CommitInfo:
    """Publish a curated data set on the Hub, with its card, in one commit; return that commit.

    `load_dataset(repo_id)` gives all rows and columns back, `load_dataset(repo_id, "long")` one row per sample and
    class logit in words, `load_dataset(repo_id, "findings")` the findings if they were given. Files are written to a
    temporary folder first; if anything fails, the repository holds what it held before.

    Args:
        curated: what `curate` returned; a single data set becomes the split it is, or `train`.
        repo_id: `name` or `namespace/name`.
        findings: what `associate` returned.
        bands: the fitted bands; they can be loaded from the repository with `LogitBands.from_pretrained`.
        source: Hub id of the data set that the rows come from, for the card.
        license: by default that in `curated.info`, where there is one.
        private: whether a new repository is private. An existing public one is then refused.
        token: by default the one stored by `hf auth login` or in HF_TOKEN; needs write access.
        revision: branch to publish to, made if need be.
        max_shard_bytes: a parquet file is closed once it is this large.

    Raises:
        PublishError: bad input, found before anything is uploaded: columns missing, an invalid id, no token or one
            that may not write, an existing public repository, another data set there. Also when the Hub stays
            unreachable.
    """
    content = Content(_named(curated), findings, bands, source, license, max_shard_bytes)
    features = _checked(content)
    target = open_target(repo_id, "dataset", private=private, token=token, revision=revision)
    state = target.ask("look at", target.state)
    if state is not None:
        target.ask("read", lambda: _refuse_other(target, state, features))
    with scratch_folder() as folder:
        write_files(content, features, target.repo_id, folder)
        return commit(
            target,
            files_in(folder),
            message="Publish curated data set",
            stale=_is_ours,
            refuse_other=lambda state: _refuse_other(target, state, features),
        )


def write_files(content: Content, features: Features, repo_id: str, folder: Path) -> DatasetFacts:
    """Write everything that a data set's repository holds into `folder`; return the facts of its card."""
    configs = [
        _write_config("default", _default_tables(content, features), features, content, folder),
        _write_config("long", _long_tables(content, features), long_features(features), content, folder),
    ]
    if content.findings is not None and len(content.findings):  # `load_dataset` refuses a split without rows
        found = {"train": batches(content.findings)}
        configs.append(_write_config("findings", found, content.findings.features, content, folder))
        text = json.dumps(gather.shareable(provenance(content.findings)), indent=2) + "\n"
        (folder / PROVENANCE).write_text(text, encoding="utf-8")
    if content.bands is not None:
        content.bands.save_pretrained(folder)
    facts = dataset_facts(content, features, repo_id, tuple(configs))
    (folder / "README.md").write_text(dataset_card(facts), encoding="utf-8")
    return facts


def dataset_facts(
    content: Content, features: Features, repo_id: str, configs: tuple[ConfigFacts, ...] = ()
) -> DatasetFacts:
    """Return everything that the card of a data set says."""
    info = next(iter(content.splits.values())).info
    return DatasetFacts(
        repo_id=repo_id,
        task="image-classification" if columns.IMAGE in features else "text-classification",
        configs=configs,
        columns=gather.column_facts(features),
        curation=tuple(gather.curation_facts(split, name) for name, split in content.splits.items()),
        versions=gather.versions(),
        groups=tuple(group for name, split in content.splits.items() for group in gather.group_facts(split, name)),
        **gather.finding_facts(content.findings),
        bands=gather.band_facts(content.bands),
        sources=(content.source,) if content.source else (),
        source_note=gather.note_in(info.description or ""),
        classifier=gather.classifier_in(info.description or ""),
        homepage=info.homepage or None,
        citation=info.citation or None,
        licence=content.license or info.license or None,
        classes=tuple(columns.class_label(features).names),
    )


def _named(curated: Dataset | DatasetDict) -> dict[str, Dataset]:
    if isinstance(curated, DatasetDict):
        return dict(curated)
    if isinstance(curated, Dataset):
        name = str(curated.split) if curated.split is not None else "train"
        return {name if re.fullmatch(r"\w+(\.\w+)*", name) else "train": curated}
    kind = type(curated).__name__
    raise TypeError(f"publish_dataset takes a Dataset or DatasetDict that `curate` returned, not {kind}")


def _checked(content: Content) -> Features:
    """Return the features of all splits, after refusing what cannot be published."""
    if not content.splits:
        raise PublishError("there is no split to publish; `curate(ds)` gives what is wanted")
    for name, split in content.splits.items():
        missing = [column for column in _NEEDED if column not in split.column_names]
        if missing:
            raise PublishError(
                f"split {name!r} lacks the columns {missing}; `hm.curate` gives them to what `hm.extract` "
                "returned, or leave the split out"
            )
        if not len(split):
            raise PublishError(f"split {name!r} has no rows; leave it out")
        columns.labels(split)
        gather.curation_facts(split, name)
    if content.bands is not None and not content.bands.fitted:
        raise PublishError("these bands are not fitted; `bands = bands.fit(held_out_split)` fits them")
    if content.max_shard_bytes < 1:
        raise PublishError(f"`max_shard_bytes` must be positive, but is {content.max_shard_bytes}")
    _refuse_reserved(content)
    return common_features(content.splits)


def _refuse_reserved(content: Content) -> None:
    if content.findings is not None and "unit_name" not in content.findings.column_names:
        raise PublishError(
            f"`findings` must be what `associate` returned, but has the columns {content.findings.column_names}"
        )
    if content.source is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", content.source):
        raise PublishError(
            f"`source` must be the Hub id of a data set, such as 'me/waterbirds', but is {content.source!r}"
        )


def _default_tables(content: Content, features: Features) -> dict[str, Iterator[pa.Table]]:
    return {name: _recoded(split, features) for name, split in content.splits.items()}


def _long_tables(content: Content, features: Features) -> dict[str, Iterator[pa.Table]]:
    names = content.bands.names if content.bands is not None else BANDS
    units = units_that_matter(next(iter(content.splits.values())), content.findings)
    return {
        name: long_tables(_recoded(split, features), features, units, names) for name, split in content.splits.items()
    }


def _recoded(split: Dataset, features: Features) -> Iterator[pa.Table]:
    return (recoded(table, split.features, features) for table in batches(split))


def _write_config(
    name: str, tables: Mapping[str, Iterator[pa.Table]], features: Features, content: Content, folder: Path
) -> ConfigFacts:
    splits = []
    for split, stream in tables.items():
        files, rows = write_shards(stream, features, folder / FOLDERS[name], split, content.max_shard_bytes)
        splits.append(SplitFacts(split, rows, sum(file.stat().st_size for file in files)))
    return ConfigFacts(name, FOLDERS[name], tuple(splits), Features(features)._to_yaml_list())


def _is_ours(path: str) -> bool:
    """Return whether an earlier publication wrote this file."""
    folder, _, name = path.partition("/")
    in_folder = folder in FOLDERS.values() and name.endswith(".parquet")
    return in_folder or path in (PROVENANCE, "bands.json")


def _refuse_other(target: Target, state: State, features: Features) -> None:
    """Refuse to replace what is no curated data set of these classes."""
    if not state.content:
        return
    metadata = _metadata(target.read("README.md", state) or "")
    if LIBRARY_TAG not in (metadata.get("tags") or ()):
        raise PublishError(
            f"the data set {target.repo_id} exists and was not published by this package (it holds "
            f"{', '.join(state.content[:4])}, ...); choose another id"
        )
    there, here = _class_names(metadata), [str(name) for name in columns.class_label(features).names]
    if there is not None and there != here:
        raise PublishError(
            f"the data set {target.repo_id} exists and has the classes {there[:6]}, this one {here[:6]}; choose "
            "another id"
        )


def _metadata(card: str) -> dict[str, Any]:
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", card, flags=re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _class_names(metadata: Mapping[str, Any]) -> list[str] | None:
    infos = metadata.get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        for feature in info.get("features") or ():
            if feature.get("name") == columns.LABEL and info.get("config_name", "default") == "default":
                names = Features._from_yaml_list([feature])[columns.LABEL].names
                return [str(name) for name in names]
    return None
