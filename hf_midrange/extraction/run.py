"""`extract`: one public function over datasets, dictionaries of datasets and streams, on one process or several."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import nn

from hf_midrange.classifier import load_classifier
from hf_midrange.columns import signed
from hf_midrange.extraction.collated import Collated
from hf_midrange.extraction.engine import Extraction, Options
from hf_midrange.extraction.inputs import Processor, preparation
from hf_midrange.extraction.manifest import model_key
from hf_midrange.processes import join_processes


Data = TypeVar("Data", Dataset, DatasetDict, IterableDataset, IterableDatasetDict)


def extract(
    dataset: Data,
    model: nn.Module | str | PathLike[str],
    processor: Processor | Collated | str | PathLike[str] | None = None,
    *,
    batch_size: int = 64,
    output_dir: str | PathLike[str] | None = None,
    shared: bool = True,
    head: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    num_workers: int = 0,
    shard_size: int = 4096,
    max_length: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    run_id: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Data:
    """Run a classifier over a dataset and add the columns `embedding`, `logits` and `prediction`.

    One forward pass a row: the embedding is the input of the classifier's last linear layer, of shape `(d,)`; the
    logits, of shape `(C,)`, are that layer applied to it in float32, whatever the backbone's precision. Rows come back
    in order, on any number of processes (`accelerate launch`). The model keeps its weights, buffers, mode and device.

    With `output_dir`, rows are computed in shards. A finished shard is on disk and is never computed again, so the
    same call after a crash goes on where it stopped, and memory does not grow with the number of rows: the result is
    the dataset with memory-mapped columns. Without it, results stay in memory, and those of a stream are computed as
    it is read.

    Each shard has a checksum: one that was cut short or changed is computed again when a run goes on, and named by
    `read_shards`. One run at a time writes into a folder; the lock of a process that died is no obstacle. After a full
    disk or Ctrl-C, too, the same call goes on. Images more than 50 times as long as wide are squeezed to that.

    Of a stream, the position after each shard is kept too, and a run that goes on reads on from there. On several
    processes each reads past the shards of the others; give each a part by `split_dataset_by_node`, and an
    `output_dir` of its own, and it reads its part alone.

    Args:
        dataset: has `image`, or `text` and perhaps `text_pair`; if it has `label`, a `ClassLabel`, the model must have
            as many labels. A `DatasetDict` is written to one subfolder a split.
        model: a timm or transformers image classifier or a transformers sequence classifier; or its Hub id or folder.
        processor: an image processor, a tokenizer, or a callable from a PIL image to a tensor of shape `(3, h, w)`;
            or `Collated`, rows that are model inputs already; None takes the model's own.
        batch_size: rows a forward pass; halved by itself where the device's memory is too small. Sums are rounded
            differently in batches of another size, by about 1e-6 of the values.
        output_dir: folder for the shards; shared by all processes.
        shared: False if nodes do not share a disk: `output_dir` is then a folder of this node's own, the rows of the
            shards that lie in it come back, and `merge_shards` makes one folder of all.
        head: name of the last linear layer, where several fit.
        device: where to run; None takes the process's accelerator, else the CPU.
        dtype: precision of the backbone, such as `"bfloat16"`; None takes the model's own.
        num_workers: worker processes that decode and transform or tokenise; streams use none.
        shard_size: rows a shard: what is held in memory, and what is lost at most when a process dies.
        max_length: most tokens of a text; None takes the tokenizer's limit.
        on_error: `"skip"` drops unreadable rows and says how many; `"raise"` names the first.
        run_id: your name for these rows, in place of the dataset's fingerprint or a stream's first shard.
        overwrite: delete the shards of another run in `output_dir`.
        trust_remote_code: run code that comes with the model.

    Returns:
        The same kind of dataset, with the columns added.

    Raises:
        KeyError: if the image or text column is missing.
        TypeError: if a column has the wrong feature.
        ValueError: if the dataset is empty, a row cannot be read, the model's labels are not the dataset's, the last
            linear layer is not clear, `output_dir` holds another run, or another process is writing there.
        OSError: if the disk is full or `output_dir` cannot be written.

    Example:
        ```python
        ds = hm.extract(ds, "timm/resnet18.a1_in1k", output_dir="extracted", batch_size=128)
        ds.with_format("torch")["embedding"]  # float32, of shape (n, 512)
        ```
    """
    state = join_processes()
    chosen_device = state.device if device is None else torch.device(device)
    chosen_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    options = Options(
        batch_size, shard_size, num_workers, head, chosen_device, chosen_dtype, on_error, run_id, overwrite, shared
    )  # fmt: skip
    classifier = load_classifier(model, trust_remote_code=trust_remote_code)
    source = None if isinstance(model, nn.Module) else fspath(model)
    prepare = preparation(
        classifier, processor, source=source, max_length=max_length, trust_remote_code=trust_remote_code
    )
    extraction = Extraction(classifier, prepare, options)
    folder = None if output_dir is None else Path(output_dir)
    if isinstance(dataset, DatasetDict | IterableDatasetDict):
        for split in dataset.values():
            extraction.check(split)
        parts = {
            name: _signed(extraction.run(split, folder and folder / name), classifier, source)
            for name, split in dataset.items()
        }
        return type(dataset)(parts)
    extraction.check(dataset)
    return _signed(extraction.run(dataset, folder), classifier, source)


def _signed(result: Dataset | IterableDataset, model: nn.Module, source: str | None) -> Any:  # noqa: ANN401 - the same
    """Say which model the columns come from."""
    config = getattr(model, "config", None)
    name = source or getattr(config, "name_or_path", "") or "unnamed"
    commit = getattr(config, "_commit_hash", None)
    return signed(result, "extract", f"{name}{'@' + commit if commit else ''}, {model_key(model)}")
