"""Rows a second, disk and peak memory of every step at three sizes, how they grow, and what a killed run costs.

Every step runs in a process of its own over memory-mapped rows that the steps before it wrote, and its peak is what
`/usr/bin/time` would show: mapped pages and the libraries (about 600 MB) are in it. The growth exponent is the slope
of log(figure) on log(rows): 1 is linear, 0 is flat. Results are kept in `--work`, and a finished run is not repeated.

    python benchmarks/scale.py
    python benchmarks/scale.py --width 1280 --classes 10 --rows 50000 100000 400000 --work /large/disk --keep
    python benchmarks/scale.py --logits 2000000 --units 1000 --work /large/disk
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from scale_rows import SHARD, classifier, extracted, tokenizer, write_logits, write_rows, write_texts


FOLLOWING = ("bands", "annotate", "associate", "curate", "retrain", "publish")
IMPORTS = {
    "extract": ("torch", "transformers", "hf_midrange.extraction"),
    "bands": ("hf_midrange.bands",),
    "annotate": ("hf_midrange.concepts",),
    "associate": ("hf_midrange.association",),
    "curate": ("torch", "sklearn.cluster", "hf_midrange.curation"),
    "retrain": ("torch", "hf_midrange.head"),
    "publish": ("hf_midrange.publishing",),
    "logits": ("hf_midrange.association",),
    "associate_together": ("accelerate", "hf_midrange.association"),
}
LESS = 16
"""A network is so much dearer than the rest that `extract` gets this many times fewer rows."""


def step_extract(folder: Path):
    import hf_midrange as hm

    texts = extracted(folder / "texts")
    return hm.extract(texts, classifier(), tokenizer(), output_dir=folder / "shards", shard_size=512)


def step_bands(folder: Path):
    import hf_midrange as hm

    ds = extracted(folder / "rows")
    bands = hm.LogitBands().fit(ds)
    save(bands.transform(ds), folder / "banded")
    bands.save_pretrained(folder / "bands")


def step_annotate(folder: Path):
    import hf_midrange as hm

    save(hm.annotate(load(folder / "banded"), [hm.NGrams("text"), hm.TextStyle("text")]), folder / "annotated")


def step_associate(folder: Path):
    import hf_midrange as hm

    save(hm.associate(load(folder / "annotated")), folder / "findings")


def step_curate(folder: Path):
    import hf_midrange as hm

    save(hm.curate(load(folder / "annotated"), load(folder / "findings")), folder / "curated")


def step_retrain(folder: Path):
    import hf_midrange as hm

    hm.retrain_head(load(folder / "curated"), force=True).save_pretrained(folder / "head")


def step_publish(folder: Path):
    """Write all files of a publication; the upload is the Hub's business."""
    from hf_midrange.publishing.dataset import Content, write_files

    content = Content.of(load(folder / "curated"), findings=load(folder / "findings"))
    (folder / "published").mkdir()
    write_files(content, "me/rows", folder / "published")


def step_logits(folder: Path):
    """Bands and associations of shards that hold nothing but logits, labels and concepts."""
    import hf_midrange as hm

    ds = extracted(folder / "logits")
    start = time.perf_counter()
    bands = hm.LogitBands().fit(ds)
    say(folder, "fit", time.perf_counter() - start)
    start = time.perf_counter()
    banded = bands.transform(ds)
    say(folder, "transform", time.perf_counter() - start)
    start = time.perf_counter()
    findings = hm.associate(banded)
    say(folder, "associate", time.perf_counter() - start)
    print(f"{len(findings)} findings, {sum(findings['confounder'])} confounders", flush=True)


def say(folder: Path, name: str, seconds: float) -> None:
    gigabytes = peak_megabytes() / 1000
    print(f"{name}: {seconds:.0f} s, peak so far {gigabytes:.2f} GB, {disk(folder) / 1e9:.1f} GB disk", flush=True)


def peak_megabytes() -> float:
    """Return the peak of this process's resident memory, mapped pages included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def load(folder: Path):
    from hf_midrange.io.datasets import read_dataset

    return read_dataset(str(folder))


def save(ds, folder: Path) -> None:
    from hf_midrange.io.datasets import write_dataset

    write_dataset(ds, folder)


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def child(step: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--step", step, "--work", str(folder)]


def environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **quiet}


def measured(step: str, folder: Path) -> dict[str, float]:
    """Run a step in a fresh process: seconds without imports, peak megabytes, bytes it left on disk."""
    before = disk(folder)
    done = subprocess.run(child(step, folder), env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{step} failed:\n{done.stderr[-3000:]}")
    figures = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "disk": disk(folder) - before}


def run_step(step: str, folder: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    for module in IMPORTS[step]:  # imports are no part of a step's time
        import_module(module)
    start = time.perf_counter()
    globals()[f"step_{step}"](folder)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}))


def all_sizes(options, results: dict) -> None:
    for rows in options.rows:
        folder = options.work / f"{rows}x{options.width}x{options.classes}"
        for step in ("extract", *FOLLOWING):
            key = f"{step} {folder.name}"
            if key in results:
                continue
            if step == "extract" and not (folder / "texts").is_dir():
                write_texts(folder / "texts", rows // LESS)
            if step == "bands" and not (folder / "rows").is_dir():
                write_rows(folder / "rows", rows, options.width, options.classes)
            results[key] = measured(step, folder) | {"rows": rows // LESS if step == "extract" else rows}
            (options.work / "scale.json").write_text(json.dumps(results, indent=1))
            print(f"{key}: {results[key]['seconds']:.1f} s, {results[key]['megabytes']:.0f} MB", flush=True)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def slope(rows: list[float], figures: list[float]) -> float:
    return float(np.polyfit(np.log(rows), np.log(np.maximum(figures, 1e-3)), 1)[0])


def table(options, results: dict) -> str:
    lines = [
        f"Embeddings of width {options.width}, {options.classes} classes, one thread.",
        "",
        "| step | rows | rows a second | time grows as | peak MB | peak grows as | GB disk per million rows |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in ("extract", *FOLLOWING):
        runs = [results[f"{step} {rows}x{options.width}x{options.classes}"] for rows in options.rows]
        rows, seconds, peak, left = ([run[name] for run in runs] for name in ("rows", "seconds", "megabytes", "disk"))
        speed = ", ".join(f"{n / s:,.0f}" for n, s in zip(rows, seconds, strict=True))
        lines.append(
            f"| {step} | {', '.join(f'{n:,}' for n in rows)} | {speed} | n^{slope(rows, seconds):.2f} "
            f"| {', '.join(f'{m:.0f}' for m in peak)} | n^{slope(rows, peak):.2f} | {left[-1] / rows[-1] / 1000:.2f} |"
        )
    return "\n".join(lines)


def kill_and_resume(work: Path, rows: int) -> str:
    """Extract once undisturbed, and once killed halfway and started again."""
    whole, broken = work / "whole", work / "broken"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
        write_texts(folder / "texts", rows)
    undisturbed = wall(child("extract", whole))
    expected = -(-rows // SHARD)
    start = time.perf_counter()
    running = subprocess.Popen(child("extract", broken), env=environment(), stdout=subprocess.DEVNULL)
    while running.poll() is None and len(list((broken / "shards").glob("*.json"))) < expected // 2:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    killed = time.perf_counter() - start
    resumed = wall(child("extract", broken))
    start_up = wall([sys.executable, "-c", "import hf_midrange.extraction"])
    extra = killed + resumed - undisturbed
    return (
        f"Killed halfway and started again, extract of {rows} rows took {killed:.1f} + {resumed:.1f} s instead of "
        f"{undisturbed:.1f} s: {extra:.1f} s more, of which {start_up:.1f} s are imports ({extra / undisturbed:.0%})."
    )


def prepare_extract(folder: Path) -> None:
    write_texts(folder / "texts", 8192)


def prepare_associate(folder: Path) -> None:
    import hf_midrange as hm

    write_logits(folder / "logits", 100_000, 200)
    ds = extracted(folder / "logits")
    save(hm.LogitBands().fit(ds).transform(ds), folder / "banded")


def step_associate_together(folder: Path) -> None:
    import hf_midrange as hm

    hm.associate(load(folder / "banded"), distributed=True)


TOGETHER = {
    "extract": prepare_extract,
    "associate_together": prepare_associate,
}


def two_processes(step: str, work: Path) -> str:
    """Compare one process of one thread with two of one thread each: medians of three alternating runs."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    folder = work / step
    TOGETHER[step](folder)
    for _ in range(3):
        for count, taken in seconds.items():
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
            command = [*launch, *child(step, folder)[1:]]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
            figures = re.findall(r'\{"seconds".*?\}', done.stdout)  # two processes may write into one line
            taken.append(max(json.loads(figure)["seconds"] for figure in figures))
            shutil.rmtree(folder / "shards", ignore_errors=True)
    shutil.rmtree(folder)
    one, two = (statistics.median(taken) for taken in seconds.values())
    return (
        f"{step.removesuffix('_together')}: {one:.1f} s on one process, {two:.1f} s on two ({one / two:.2f} times as "
        f"fast; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)."
    )


def wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    return time.perf_counter() - start


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4000, 16000, 64000])
    parser.add_argument("--width", type=int, default=256, help="of the embedding")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--logits", type=int, default=0, help="instead, bands and associations of so many rows")
    parser.add_argument("--units", type=int, default=1000, help="logits a row, with --logits")
    parser.add_argument("--work", type=Path, help="folder for data and results; by default a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the data in the folder")
    parser.add_argument("--processes", action="store_true", help="also compare two processes with one")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.step:
        run_step(options.step, options.work)
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.work = options.work or Path(temporary)
        options.work.mkdir(parents=True, exist_ok=True)
        if options.logits:
            write_logits(options.work / "logits", options.logits, options.units)
            subprocess.run(child("logits", options.work), env=environment(), check=True)
            return
        kept = options.work / "scale.json"
        results = json.loads(kept.read_text()) if kept.is_file() else {}
        all_sizes(options, results)
        print(table(options, results), flush=True)
        print(kill_and_resume(options.work, 4096), flush=True)
        for step in TOGETHER if options.processes else ():
            print(two_processes(step, options.work), flush=True)


if __name__ == "__main__":
    main()
