"""`publish_dataset`: a curated data set that explains itself, in one commit."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from datasets.features.features import require_storage_embed
from datasets.table import InMemoryTable, embed_table_storage
from huggingface_hub import CommitInfo

from hf_midrange import columns
from hf_midrange.association.findings import provenance
from hf_midrange.curation.report import curation_report, shared_reason_feature
from hf_midrange.io.folders import scratch_folder
from hf_midrange.publishing import facts as told
from hf_midrange.publishing.cards import LIBRARY_TAG, dataset_card
from hf_midrange.publishing.facts import ConfigFacts, DatasetFacts, SplitFacts
from hf_midrange.publishing.repository import (
    CommitOptions,
    PublishError,
    Repository,
    State,
    open_repository,
    refuse_non_id,
)


if TYPE_CHECKING:
    from hf_midrange.bands import LogitBands

FOLDERS = {"default": "data", "long": "long", "findings": "findings"}
PROVENANCE = "findings.json"
STALE = rf"({'|'.join(FOLDERS.values())})/[^/]*\.parquet|{PROVENANCE}|bands\.json"
"""Files that an earlier publication wrote."""
MAX_SHARD_BYTES = 500_000_000
_BY_CURATE = (columns.PSEUDO_GROUP, columns.KEEP, columns.WEIGHT, columns.CONFOUNDERS, columns.REASON)
_NEEDED = (columns.LABEL, columns.LOGITS, *_BY_CURATE)
_OF_THEIR_SPLIT = (columns.PSEUDO_GROUP, columns.CONFOUNDERS, columns.REASON)
"""Columns of `curate` whose features depend on the rows, so that splits differ in them."""
_FILES_AT_ONCE = 100
"""Rows whose image files are read into memory together."""
MOST_UNITS = 8
"""Class logits that the long form shows of a row."""
LONGEST_SIDE = 128
"""Pixels; larger images are shown in it as thumbnails."""


@dataclass(frozen=True)
class Content:
    """What is published: named splits, what was found on them, and where they come from."""

    splits: Mapping[str, Dataset]
    findings: Dataset | None = None
    bands: LogitBands | None = None
    source: str | None = None
    license: str | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    same: Mapping[str, Dataset] = field(default_factory=dict)
    """The splits with one set of features, which name no local folder."""

    @classmethod
    def of(cls, curated: Dataset | DatasetDict, **facts: Any) -> Content:  # noqa: ANN401 - the other fields
        """Return the content of a publication, all splits with the same features.

        Raises:
            TypeError: if `curated` is neither a Dataset nor a DatasetDict.
            PublishError: if it cannot be published.
        """
        content = cls(_named(curated), **facts)
        _refuse_unfit(content)
        same = {name: _without_folders(split) for name, split in with_common_features(content.splits).items()}
        return replace(content, same=same)

    @property
    def features(self) -> Features:
        """Of all splits, as they are published."""
        return next(iter(self.same.values())).features


def publish_dataset(
    curated: Dataset | DatasetDict,
    repo_id: str,
    *,
    findings: Dataset | None = None,
    bands: LogitBands | None = None,
    source: str | None = None,
    license: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **commit: Unpack[CommitOptions],
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
        max_shard_bytes: of the rows in one parquet file, before they are compressed.
        **commit: `private`, `token`, `revision`, `commit_message` and `create_pr`, of `CommitOptions`.

    Raises:
        PublishError: bad input, found before anything is uploaded: columns missing, an invalid id, no token, an
            existing public repository, another data set there. Also when the Hub refuses the token, or stays
            unreachable.
    """
    content = Content.of(
        curated, findings=findings, bands=bands, source=source, license=license, max_shard_bytes=max_shard_bytes
    )
    repository = open_repository(repo_id, "dataset", **commit)
    return repository.commit(
        lambda folder: write_files(content, repository.repo_id, folder),
        title="Publish curated data set",
        stale=STALE,
        refuse_other=lambda state: _refuse_other(repository, state, content.features),
    )


def write_files(content: Content, repo_id: str, folder: Path) -> DatasetFacts:
    """Write everything that a data set's repository holds into `folder`; return the facts of its card."""
    configs = [_write_config("default", content.same, content, folder), _write_long_form(content, folder)]
    if content.findings is not None and len(content.findings):  # `load_dataset` refuses a split without rows
        configs.append(_write_config("findings", {"train": content.findings}, content, folder))
        text = json.dumps(told.shareable(provenance(content.findings)), indent=2) + "\n"
        (folder / PROVENANCE).write_text(text, encoding="utf-8")
    if content.bands is not None:
        content.bands.save_pretrained(folder)
    facts = _dataset_facts(content, repo_id, tuple(configs))
    (folder / "README.md").write_text(dataset_card(facts), encoding="utf-8")
    return facts


def write_split(ds: Dataset, folder: Path, split: str, max_bytes: int) -> SplitFacts:
    """Write `folder`/`split`-00000-of-0000N.parquet, with the files that rows name, such as images, inside.

    Args:
        ds: the rows; a split without rows still gets one file, so that its features are kept.
        folder: made if it is missing.
        split: its name.
        max_bytes: of the rows in one file, before they are compressed; a file has at least one row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = max(1, min(len(ds), -(-ds._estimate_nbytes() // max_bytes)))
    files = [folder / f"{split}-{k:05d}-of-{count:05d}.parquet" for k in range(count)]
    for k, file in enumerate(files):
        _with_files(ds.shard(count, k, contiguous=True) if count > 1 else ds).to_parquet(file)
    return SplitFacts(split, len(ds), sum(file.stat().st_size for file in files))


def with_common_features(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return the splits with one set of features: names of pseudo-groups joined, and every split's report kept.

    A configuration on the Hub has a single set of features.

    Raises:
        PublishError: if the splits have different columns, or a column has different features.
    """
    if len(splits) == 1:
        return dict(splits)
    _refuse_different(splits)
    groups = _joined(columns.class_label(split.features, columns.PSEUDO_GROUP).names for split in splits.values())
    confounders = _joined(columns.vocabulary(split.features, columns.CONFOUNDERS) for split in splits.values())
    reports = {name: curation_report(split) for name, split in splits.items()}
    reason = shared_reason_feature(reports)
    made = {}
    for name, split in splits.items():
        old = columns.class_label(split.features, columns.PSEUDO_GROUP).names
        ids = np.array([groups.index(group) for group in old])[columns.labels(split, columns.PSEUDO_GROUP)]
        has = columns.presence(split, columns.CONFOUNDERS).toarray()
        places = [confounders.index(word) for word in columns.vocabulary(split.features, columns.CONFOUNDERS)]
        table = np.zeros((len(split), len(confounders)), dtype=bool)
        table[:, places] = has
        recoded = columns.with_columns(
            split,
            {
                columns.PSEUDO_GROUP: (ids, ClassLabel(names=groups)),
                columns.CONFOUNDERS: (columns.concept_arrow(table, confounders), columns.concept_list(confounders)),
                columns.REASON: (split[columns.REASON][:], reason),
            },
        )
        made[name] = recoded.select_columns(list(next(iter(splits.values())).features))
    return made


def _dataset_facts(content: Content, repo_id: str, configs: tuple[ConfigFacts, ...]) -> DatasetFacts:
    """Return everything that the card of a data set says."""
    first, features = next(iter(content.splits.values())), content.features
    return DatasetFacts(
        repo_id=repo_id,
        task="image-classification" if columns.IMAGE in features else "text-classification",
        configs=configs,
        columns=told.column_facts(features),
        curation=tuple(told.curation_facts(split, name) for name, split in content.splits.items()),
        versions=told.versions(),
        **told.finding_facts(content.findings, first),
        bands=told.band_facts(content.bands),
        sources=(content.source,) if content.source else (),
        source_note=" ".join((first.info.description or "").split()) or None,
        classifier=told.classifier_of(first),
        homepage=first.info.homepage or None,
        citation=first.info.citation or None,
        licence=content.license or first.info.license or None,
    )


def _named(curated: Dataset | DatasetDict) -> dict[str, Dataset]:
    if isinstance(curated, DatasetDict):
        return dict(curated)
    if isinstance(curated, Dataset):
        name = str(curated.split) if curated.split is not None else "train"
        return {name if re.fullmatch(r"\w+(\.\w+)*", name) else "train": curated}
    kind = type(curated).__name__
    raise TypeError(f"publish_dataset takes a Dataset or DatasetDict that `curate` returned, not {kind}")


def _refuse_unfit(content: Content) -> None:
    """Refuse what cannot be published, apart from splits that differ."""
    if not content.splits:
        raise PublishError("there is no split to publish; `curate(ds)` makes one")
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
        curation_report(split)
    if content.bands is not None and not content.bands.fitted:
        raise PublishError("these bands are not fitted; `bands = bands.fit(held_out_split)` fits them")
    if content.max_shard_bytes < 1:
        raise PublishError(f"`max_shard_bytes` must be positive, but is {content.max_shard_bytes}")
    if content.findings is not None and "unit_name" not in content.findings.column_names:
        raise PublishError(
            f"`findings` must be what `associate` returned, but has the columns {content.findings.column_names}"
        )
    refuse_non_id("source", content.source)


def _refuse_different(splits: Mapping[str, Dataset]) -> None:
    """Refuse splits that differ in more than what `curate` names by their rows."""
    (first_name, first), *others = splits.items()
    for name, split in others:
        if set(split.column_names) != set(first.column_names):
            odd = sorted(set(split.column_names) ^ set(first.column_names))
            raise PublishError(f"splits {first_name!r} and {name!r} differ in the columns {odd}; give both the same")
        for column, feature in split.features.items():
            if column not in _OF_THEIR_SPLIT and feature != first.features[column]:
                raise PublishError(
                    f"column {column!r} is {first.features[column]} in split {first_name!r} but {feature} in "
                    f"{name!r}; `ds.cast_column` makes them one"
                )


def _without_folders(split: Dataset) -> Dataset:
    """Return a split whose columns say which model made them, but not in which folder it lay."""
    features = Features(split.features)
    for name in features:
        said = {} if name == columns.REASON else columns.facts(features, name)
        features[name] = columns.with_facts(features[name], **told.shareable(said)) if said else features[name]
    info = split.info.copy()
    info.features = features
    return Dataset(split.data, info=info, split=split.split, indices_table=split._indices)


def _joined(names: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for some in names for name in some))


def _write_long_form(content: Content, folder: Path) -> ConfigFacts:
    """Write the long form of every split, one arrow file after the other in between."""
    units = units_to_show(next(iter(content.same.values())), content.findings)
    with scratch_folder() as drafts:
        long = {name: long_form(split, units, drafts / f"{name}.arrow") for name, split in content.same.items()}
        return _write_config("long", long, content, folder)


def _write_config(name: str, splits: Mapping[str, Dataset], content: Content, folder: Path) -> ConfigFacts:
    written = [write_split(ds, folder / FOLDERS[name], split, content.max_shard_bytes) for split, ds in splits.items()]
    features = next(iter(splits.values())).features
    return ConfigFacts(name, FOLDERS[name], tuple(written), features._to_yaml_list())


def _with_files(ds: Dataset) -> Dataset:
    """Return rows in plain format, with the content of the files that they name in place of the names."""
    plain = ds.with_format(None)
    if not any(require_storage_embed(feature) for feature in ds.features.values()):
        return plain
    tables = plain.with_format("arrow").iter(batch_size=_FILES_AT_ONCE)
    # The feature types live in the metadata; without it nothing would be embedded.
    read = [embed_table_storage(table.cast(ds.features.arrow_schema)) for table in tables]
    return Dataset(InMemoryTable(pa.concat_tables(read)), info=plain.info) if read else plain


def _refuse_other(repository: Repository, state: State, features: Features) -> None:
    """Refuse to replace what is not a curated data set of these classes."""
    if not state.content:
        return
    if LIBRARY_TAG not in (state.card.get("tags") or ()):
        raise PublishError(
            f"the data set {repository.repo_id} exists and was not published by this package (it holds "
            f"{', '.join(state.content[:4])}, ...); choose another id"
        )
    there, here = _class_names(state.card), [str(name) for name in columns.class_label(features).names]
    if there is not None and there != here:
        raise PublishError(
            f"the data set {repository.repo_id} exists and has the classes {there[:6]}, this one {here[:6]}; choose "
            "another id"
        )


def _class_names(card: Mapping[str, Any]) -> list[str] | None:
    infos = card.get("dataset_info") or []
    for info in infos if isinstance(infos, list) else [infos]:
        for feature in info.get("features") or ():
            if feature.get("name") == columns.LABEL and info.get("config_name", "default") == "default":
                names = Features._from_yaml_list([feature])[columns.LABEL].names
                return [str(name) for name in names]
    return None


def long_form(ds: Dataset, units: Sequence[int], file: Path) -> Dataset:
    """Return the long form of curated rows: each comes once for each of some class logits, in words, for a viewer.

    Args:
        ds: curated rows.
        units: the class logits to show.
        file: arrow file that it is written to.
    """
    kinds, told = ds.features, _long_features(ds.features)
    rows = ds.with_format(None)
    if isinstance(kinds.get(columns.IMAGE), Image):
        rows = rows.cast_column(columns.IMAGE, Image(decode=False))
    large = [name for name in kinds if name == columns.EMBEDDING or name.startswith(columns.VIEW_PREFIX)]
    rows = rows.remove_columns(large)
    return rows.map(
        lambda batch, numbers: _in_words(batch, numbers, kinds, units, told),
        with_indices=True,
        batched=True,
        batch_size=_FILES_AT_ONCE,
        remove_columns=rows.column_names,
        features=told,
        cache_file_name=str(file),
        load_from_cache_file=False,
        new_fingerprint=f"{ds._fingerprint}-long",
        desc="Putting logits into words",
    )


def _in_words(
    batch: Mapping[str, list], numbers: list[int], features: Features, units: Sequence[int], told: Features
) -> dict[str, list]:
    """Return the columns `told` of some rows with these row numbers."""
    names = columns.class_label(features).names
    by_row: dict[str, list] = {**batch, "row": numbers, "kept": batch[columns.KEEP]}
    by_row["concepts"] = _said(batch, features)
    for name in (columns.LABEL, columns.GROUP, columns.PSEUDO_GROUP):
        if name in batch:
            known = features[name].names
            by_row[name] = [None if k is None or not 0 <= k < len(known) else known[k] for k in batch[name]]
    if columns.IMAGE in told:
        by_row[columns.IMAGE] = [thumbnail(picture) for picture in batch[columns.IMAGE]]
    by_unit: dict[str, list] = {"unit": [names] * len(numbers), "logit": batch[columns.LOGITS]}
    if columns.BAND in told:
        bands = (*columns.facts(features, columns.BAND).get("bands", ("low", "mid", "high")), "undefined")  # -1: last
        by_unit[columns.BAND] = [[bands[k] for k in row] for row in batch[columns.BAND]]
        by_unit[columns.QUANTILE] = batch[columns.QUANTILE]
    return {
        name: [row[unit] for row in by_unit[name] for unit in units]
        if name in by_unit
        else [value for value in by_row[name] for _ in units]
        for name in told
    }


def thumbnail(picture: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored image at most 128 pixels wide and high; smaller ones come back byte for byte."""
    if picture is None:
        return None
    image = Image(mode="RGB").decode_example(picture)
    if max(image.size) <= LONGEST_SIDE:
        return picture
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return {"bytes": out.getvalue(), "path": None}


def _long_features(features: Features) -> Features:
    words = [name for name in (columns.TEXT, columns.TEXT_PAIR) if name in features]
    banded = columns.BAND in features and features[columns.BAND].length == columns.class_label(features).num_classes
    return Features(
        {
            "row": Value("int64"),
            **({columns.IMAGE: Image()} if isinstance(features.get(columns.IMAGE), Image) else {}),
            **dict.fromkeys(words, Value("string")),
            "label": Value("string"),
            "unit": Value("string"),
            "logit": Value("float32"),
            **({"quantile": Value("float32"), "band": Value("string")} if banded else {}),
            "concepts": List(Value("string")),
            **({"group": Value("string")} if columns.GROUP in features else {}),
            "pseudo_group": Value("string"),
            "kept": Value("bool"),
            "weight": Value("float32"),
            "reason": Value("string"),
        }
    )


def units_to_show(ds: Dataset, findings: Dataset | None) -> list[int]:
    """Return at most eight units: of many those with findings, confounders first, or else the largest classes."""
    classes = columns.class_label(ds.features).num_classes
    found: list[int] = []
    if findings is not None and classes > MOST_UNITS:
        confounded = [unit for unit, is_one in zip(findings["unit"], findings["confounder"], strict=True) if is_one]
        found = [unit for unit in dict.fromkeys([*confounded, *findings["unit"]]) if 0 <= unit < classes]
    counts = np.bincount(columns.labels(ds), minlength=classes)
    return sorted((found or np.argsort(-counts, kind="stable").tolist())[:MOST_UNITS])


def _said(batch: Mapping[str, list], features: Features) -> list[list[str]]:
    """Return the concepts of every row, each with its source."""
    found: list[list[str]] = [[] for _ in batch[columns.LABEL]]
    for column in columns.concept_columns(features):
        source, names = column.removeprefix(columns.CONCEPTS_PREFIX), columns.vocabulary(features, column)
        for words, ids in zip(found, batch[column], strict=True):
            words += [f"{source}: {names[k]}" for k in ids or ()]
    return found
