"""All figures of the full-size build in one run: floor, build, row-wise, memory, bytes read, start-up.

    python -m bench.make_raw --out RAW
    python -m bench.build_full --raw RAW --work WORK

Prints a markdown section for `bench/RESULTS.md`. Absolute seconds on a shared machine mean little: floor
and build alternate for `--rounds` rounds and the best of each is kept, and what counts are the ratios of
one run. Every program runs as its own process and its time includes interpreter start and imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bench.make_raw import make_raw
from bench.measure import Cost, measure

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = "mixvrt_dino"
HELP_RUNS = 5


@dataclass(frozen=True)
class Results:
    """What one run measured; of floor and build the best round."""

    floor: Cost
    build: Cost
    build_one: Cost
    build_half: Cost
    rowwise: Cost
    help: Cost
    rows: int
    rows_half: int
    input_mb: float
    floor_mb: float
    build_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything and print the markdown section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="a full-size root made by bench.make_raw")
    parser.add_argument("--raw-half", type=Path, help="one of scale 0.5; made under --work where not given")
    parser.add_argument("--work", type=Path, required=True, help="folder for outputs, removed during the run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args(argv)
    half = args.raw_half or args.work / "raw_half"
    if not half.exists():
        make_raw(half, 0.5)
    results = run_all(args.raw, half, args.work, args.workers, args.rounds)
    command = shlex.join(["python", "-m", "bench.build_full", *(argv if argv is not None else sys.argv[1:])])
    print(report(results, args.workers, commit(), command))
    return 0


def run_all(raw: Path, half: Path, work: Path, workers: int, rounds: int) -> Results:
    """Run every program; the corpus folders are removed once they are measured."""
    work.mkdir(parents=True, exist_ok=True)
    floors: list[Cost] = []
    builds: list[tuple[Cost, int, float]] = []
    for _ in range(rounds):
        floors.append(python(work, "bench.floor", "--raw", str(raw), "--out", str(work / "floor.parquet")))
        builds.append(build(raw, work, workers))
    rowwise = python(work, "bench.rowwise", "--raw", str(raw), "--out", str(work / "rowwise"))
    shutil.rmtree(work / "rowwise")
    best, rows, build_mb = min(builds, key=lambda item: item[0].wall_s)
    build_half, rows_half, _ = build(half, work, workers)
    results = Results(
        floor=min(floors, key=lambda cost: cost.wall_s),
        build=best,
        build_one=build(raw, work, 1)[0],
        build_half=build_half,
        rowwise=rowwise,
        help=min((python(work, "vpt_data", "--help") for _ in range(HELP_RUNS)), key=lambda cost: cost.wall_s),
        rows=rows,
        rows_half=rows_half,
        input_mb=size_mb(raw),
        floor_mb=size_mb(work / "floor.parquet"),
        build_mb=build_mb,
    )
    (work / "floor.parquet").unlink()
    return results


def python(work: Path, module: str, *arguments: str) -> Cost:
    """Measure `python -m module arguments` on this checkout."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hf")}
    return measure([sys.executable, "-m", module, *arguments], cwd=REPOSITORY, env=env)


def build(raw: Path, work: Path, workers: int) -> tuple[Cost, int, float]:
    """Build the recipe in reference mode: its cost, rows kept, size of the corpus in MB."""
    out = work / "corpus"
    shutil.rmtree(out, ignore_errors=True)
    cost = python(
        work,
        "vpt_data",
        "build",
        "--recipe",
        RECIPE,
        "--raw",
        str(raw),
        "--out",
        str(out),
        "--workers",
        str(workers),
    )
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    rows, size = sum(split["rows"] for split in manifest["splits"].values()), size_mb(out)
    shutil.rmtree(out)
    return cost, rows, size


def size_mb(path: Path) -> float:
    """Bytes of a file, or of all files under a folder, in MB of 1e6."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _stages(rowwise: Cost) -> dict[str, float]:
    """Seconds of each stage, as the row-wise program itself reports them."""
    found: dict[str, float] = json.loads(rowwise.stdout.splitlines()[-1])["seconds"]
    return found


def commit() -> str:
    """Short hash of the commit, with `+changes` where the work tree differs; `unknown` outside git."""
    found = []
    for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"]):
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return "unknown"
        found.append(done.stdout.strip())
    return found[0] + ("+changes" if found[1] else "")


def report(results: Results, workers: int, commit_hash: str, command: str) -> str:
    """The markdown section: where it was made, absolute values, ratios against their targets."""
    made = (
        f"Python {platform.python_version()}, pyarrow {pa.__version__}, {os.cpu_count()} cores; "
        f"input {results.input_mb:,.0f} MB; build: {results.rows:,} rows, {results.build_mb:,.0f} MB; "
        f"floor: {results.floor_mb:,.0f} MB (half size: {results.rows_half:,} rows)."
    )
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in _stages(results.rowwise).items())
    lines = [
        f"### Commit {commit_hash}",
        "",
        f"`{command}`",
        "",
        made,
        "",
        f"Seconds of the row-wise program: {stages}.",
        "",
        "| program | wall s | CPU s | peak RSS MB | peak own MB | read MB | wrote MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
        _line("floor (one process)", results.floor),
        _line(f"build, {workers} workers", results.build),
        _line("build, 1 worker", results.build_one),
        _line(f"build at half size, {workers} workers", results.build_half),
        _line("row-wise `datasets.map` (one process)", results.rowwise),
        _line(f"`vpt-data --help`, best of {HELP_RUNS}", results.help),
        "",
        "| ratio or limit | value | target |",
        "|---|---:|---:|",
    ]
    return "\n".join([*lines, *(f"| {name} | {value} | {target} |" for name, value, target in _ratios(results))])


def _line(name: str, cost: Cost) -> str:
    memory = f"{cost.peak_rss_mb:,.0f} | {cost.peak_anon_mb:,.0f}"
    moved = f"{cost.read_mb:,.0f} | {cost.wrote_mb:,.0f}"
    return f"| {name} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {memory} | {moved} |"


def _ratios(results: Results) -> list[tuple[str, str, str]]:
    # What was written and is not in the corpus is scratch, which may be read back unseen through memory maps.
    read_most = results.build.read_mb + max(0.0, results.build.wrote_mb - results.build_mb)
    stages = _stages(results.rowwise)
    floor, build_s, half = results.floor.wall_s, results.build.wall_s, results.build_half
    return [
        ("build / floor, wall", f"{build_s / floor:.2f}", "<= 2.0"),
        ("build with 1 worker / floor, wall", f"{results.build_one.wall_s / floor:.2f}", ""),
        ("row-wise / build, wall", f"{results.rowwise.wall_s / build_s:.1f}", ">= 10"),
        (
            "the same without ordering and writing (row-wise only)",
            f"{(results.rowwise.wall_s - stages['order'] - stages['write']) / build_s:.1f}",
            "",
        ),
        ("peak RSS of the build, MB", f"{results.build.peak_rss_mb:,.0f}", "< 2,500"),
        (
            "peak RSS, full size / half size",
            f"{results.build.peak_rss_mb / half.peak_rss_mb:.2f}",
            "flat (about 1)",
        ),
        (
            "peak own memory, full size / half size",
            f"{results.build.peak_anon_mb / half.peak_anon_mb:.2f}",
            "flat (about 1)",
        ),
        ("bytes read by read(2) / input bytes", f"{results.build.read_mb / results.input_mb:.2f}", "<= 2.2"),
        (
            "the same + scratch files mapped once, upper bound",
            f"{read_most / results.input_mb:.2f}",
            "<= 2.2",
        ),
        ("`vpt-data --help`, s", f"{results.help.wall_s:.2f}", "< 0.3"),
    ]


if __name__ == "__main__":
    sys.exit(main())
