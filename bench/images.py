"""All figures of embedding images in one run: floor, build, webdataset, `datasets`, memory, size of the corpus.

    python -m bench.images --work WORK [--images 20000] [--rounds 3]

Makes the raw roots of `bench/images_raw.py` under WORK where they are not there yet and prints a markdown section for
`bench/RESULTS.md`. A disk is fast in one minute and slow in the next: all programs run in turn in every round, a ratio
is one of two times of the same round, and the table has the median round and all rounds. The rate of a build is that of
the whole command: start, reading and choosing rows, text, images. "Images alone" takes the time of the same build
without images from it; it says where the time goes and has no target. What ran before shows in a time (fresh memory
cost 2 s a GB on the machine of the first results), so before each program the floor runs once more, unmeasured. The
programs that write an image for every row move three times the bytes and run in the first round only. All images are
in the page cache; every program ends with its bytes on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pyarrow as pa

from bench.build_full import commit, python, size_mb
from bench.images_raw import LAYOUTS, make_raw
from bench.measure import Cost

FLOOR = "floor: copy, hash, fsync (1 process)"
TEXT = "build, text alone (reference mode), 1 worker"
TEXT_TWO = "build, text alone (reference mode), 2 workers"
BUILD = "build --images embed, {layout}, {workers}"
ONE, TWO = BUILD.format(layout="folder", workers="1 worker"), BUILD.format(layout="folder", workers="2 workers")
ZIP, TAR = (BUILD.format(layout=layout, workers="2 workers") for layout in ("zip", "tar in parts"))
WDS, WDS_ROWS = "webdataset, each image once", "webdataset, an image for every row"
HF, HF_ROWS = "`datasets`, each image once", "`datasets`, an image for every row"


class Ran(NamedTuple):
    """One run of a program: its cost, the size of what it wrote in MB, the fingerprint where it is a corpus."""

    cost: Cost
    size_mb: float
    fingerprint: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything and print the markdown section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the raw roots (kept) and outputs (removed)"
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    raw = args.work / f"raw-{args.images}"
    if not (raw / "own.toml").exists():  # it is written last
        shutil.rmtree(raw, ignore_errors=True)
        make_raw(raw, args.images)
    distinct_mb = size_mb(raw / "folder/own/images")
    read_all(raw)
    rounds = [run_round(raw, args.work, number == 0) for number in range(args.rounds)]
    check_same(rounds)
    command = shlex.join(["python", "-m", "bench.images", *(argv if argv is not None else sys.argv[1:])])
    print(report(rounds, args.images, distinct_mb, commit(), command))
    return 0


def read_all(raw: Path) -> None:
    """Have the raw roots in the page cache."""
    for path in raw.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def run_round(raw: Path, work: Path, rows_too: bool) -> dict[str, Ran]:
    """Every program once; what it wrote is removed."""
    found = {
        FLOOR: peer(raw, work, "floor"),
        TEXT: build(raw, work, "folder", 1, "reference"),
        TEXT_TWO: build(raw, work, "folder", 2, "reference"),
    }
    for name, layout, workers in ((ONE, "folder", 1), (TWO, "folder", 2), (ZIP, "zip", 2), (TAR, "tar", 2)):
        found[name] = build(raw, work, layout, workers, "embed")
    found[WDS] = peer(raw, work, "webdataset", "--each", "image")
    found[HF] = peer(raw, work, "datasets", "--each", "image")
    if rows_too:
        found[WDS_ROWS] = peer(raw, work, "webdataset")
        found[HF_ROWS] = peer(raw, work, "datasets")
    return found


def peer(raw: Path, work: Path, *arguments: str) -> Ran:
    """Measure a program of `bench.images_peers`; the cache of `datasets` is not part of what it wrote."""
    out = settled(raw, work)
    cost = python(work, "bench.images_peers", *arguments, "--raw", str(raw / "folder"), "--out", str(out))
    shutil.rmtree(out / "cache", ignore_errors=True)
    size = size_mb(out)
    shutil.rmtree(out)
    return Ran(cost, size)


def settled(raw: Path, work: Path) -> Path:
    """The folder for what comes next, after a run of the floor that leaves memory as a program like it does."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    python(work, "bench.images_peers", "floor", "--raw", str(raw / "folder"), "--out", str(out))
    shutil.rmtree(out)
    return out


def build(raw: Path, work: Path, layout: str, workers: int, images: str) -> Ran:
    """Measure a build; the size is that of its shards."""
    out = settled(raw, work)
    recipe, root = str(raw / "own.toml"), str(raw / layout)
    options = ["--recipe", recipe, "--raw", root, "--out", str(out), "--images", images, "--workers", str(workers)]
    cost = python(work, "vpt_data", "build", *options)
    fingerprint = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["fingerprint"]
    size = size_mb(out / "data")
    shutil.rmtree(out)
    return Ran(cost, size, fingerprint)


def check_same(rounds: Sequence[dict[str, Ran]]) -> None:
    """All embedding builds made the same corpus; RuntimeError where they did not."""
    found = {ran.fingerprint for each in rounds for name, ran in each.items() if name in {ONE, TWO, ZIP, TAR}}
    if len(found) != 1:
        raise RuntimeError(f"images: builds from {', '.join(LAYOUTS)} made corpora with {len(found)} fingerprints")


def report(rounds: Sequence[dict[str, Ran]], images: int, distinct_mb: float, commit_hash: str, command: str) -> str:
    """The markdown section: where it was made, absolute values, ratios against their targets."""
    made = (
        f"Python {platform.python_version()}, pyarrow {pa.__version__}, {os.cpu_count()} cores; {images:,} images, "
        f"{distinct_mb:,.0f} MB, three rows each; images in the page cache; {len(rounds)} rounds."
    )
    lines = [
        f"### Commit {commit_hash}",
        "",
        f"`{command}`",
        "",
        made,
        "",
        "| program | wall s, each round | CPU s | largest process, RSS MB | written, MB |",
        "|---|---|---:|---:|---:|",
        *(_line(name, [each[name] for each in rounds if name in each]) for name in rounds[0]),
        "",
        "| ratio or limit | median | all rounds | target |",
        "|---|---:|---|---:|",
        *(_ratio(rounds, *ratio) for ratio in _RATIOS),
    ]
    embedded = [each[name] for each in rounds for name in (ONE, TWO, ZIP, TAR)]
    size, memory = embedded[0].size_mb / distinct_mb, max(ran.cost.peak_process_mb for ran in embedded)
    lines += [
        f"| shards / distinct bytes | {size:.4f} | | <= 1.03 |",
        f"| largest process of any embedding build, RSS MB | {memory:,.0f} | | < 1,000 |",
    ]
    return "\n".join(lines)


def _line(name: str, ran: Sequence[Ran]) -> str:
    walls = ", ".join(f"{each.cost.wall_s:.1f}" for each in ran)
    memory = max(each.cost.peak_process_mb for each in ran)
    return f"| {name} | {walls} | {ran[0].cost.cpu_s:.1f} | {memory:,.0f} | {ran[0].size_mb:,.0f} |"


# Name, the time above, the time below, a time to take from the one below, the target.
_RATIOS = (
    ("rate of the build, 1 worker / floor", FLOOR, ONE, None, ">= 0.7"),
    ("rate of the build, 2 workers / floor", FLOOR, TWO, None, ">= 0.7"),
    ("the same from a zip, 2 workers", FLOOR, ZIP, None, ">= 0.7"),
    ("the same from a tar in parts, 2 workers", FLOOR, TAR, None, ">= 0.7"),
    ("rate of images alone (see above), 1 worker / floor", FLOOR, ONE, TEXT, ""),
    ("rate of images alone, 2 workers / floor", FLOOR, TWO, TEXT_TWO, ""),
    ("1 worker / 2 workers, wall", ONE, TWO, None, "> 1"),
    ("webdataset (an image for every row) / build, wall", WDS_ROWS, TWO, None, "> 1"),
    ("webdataset (each image once) / build, wall", WDS, TWO, None, "> 1"),
    ("`datasets` (an image for every row) / build, wall", HF_ROWS, TWO, None, ">= 2"),
    ("`datasets` (each image once) / build, wall", HF, TWO, None, ""),
    ("webdataset (each image once) / build with 1 worker, wall", WDS, ONE, None, ""),
)


def _ratio(rounds: Sequence[dict[str, Ran]], name: str, above: str, below: str, less: str | None, target: str) -> str:
    found = []
    for each in rounds:
        if above in each:
            seconds = each[below].cost.wall_s - (each[less].cost.wall_s if less else 0.0)
            # Few images drown in the noise of two builds: no rate then.
            found.append(each[above].cost.wall_s / seconds if seconds > 0 else nan)
    return f"| {name} | {median(found):.2f} | {', '.join(f'{ratio:.2f}' for ratio in found)} | {target} |"


if __name__ == "__main__":
    sys.exit(main())
