"""Rows without pixels by the million: is the memory of a build flat, its time linear, and does it survive a kill?

    python -m bench.text_rows --work bench/.text --rows 10000000

makes JSON lines of questions with boxes, three an image, a tenth of the rows and then all of them, builds a corpus of
each with the same number of rows a shard, kills the large build half-way, runs it again and compares the manifests.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import measure

ROWS_PER_FILE = 500_000
ROWS_PER_SHARD = 20_000
RECIPE = """
name = "text"
shards = {shards}
[take.text]
source = "table"
template = "region"
task = "general"
license = "CC0-1.0"
files = ["own/text-*.jsonl"]
images = "own/images"
columns = {{ box = "box", width = "w", height = "h" }}
"""
ROW = (
    '{{"image": "{image}.jpg", "w": 640, "h": 480, "box": [{x}, {y}, {x2}, {y2}], '
    '"question": "{question}", "answer": "{answer}"}}\n'
)


def write_rows(folder: Path, rows: int) -> int:
    """JSON lines, ROWS_PER_FILE a file; gives their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for start in range(0, rows, ROWS_PER_FILE):
        path = folder / f"text-{start // ROWS_PER_FILE:05d}.jsonl"
        with path.open("w") as file:
            for row in range(start, min(rows, start + ROWS_PER_FILE)):
                question = f"How much is item {row * 2654435761 % 4294967296} of shelf {row % 977}?"
                x, y = row % 600, row % 440
                file.write(
                    ROW.format(image=row // 3, x=x, y=y, x2=x + 30, y2=y + 20, question=question, answer=row % 1000)
                )
        size += path.stat().st_size
    return size


def command(root: Path, recipe: Path, out: Path, workers: int) -> list[str]:
    options = ["--recipe", str(recipe), "--raw", str(root), "--out", str(out), "--workers", str(workers)]
    return [sys.executable, "-m", "vpt_data", "build", *options, "--json"]


def killed(arguments: list[str], after: float) -> None:
    """Begin a build and kill all of it after so many seconds."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(arguments, stdout=quiet, stderr=quiet, start_new_session=True)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def build(work: Path, rows: int, workers: int, kill: bool) -> dict[str, object]:
    root, out = work / f"raw-{rows}", work / f"corpus-{rows}"
    size = write_rows(root / "own", rows)
    recipe = work / f"text-{rows}.toml"
    recipe.write_text(RECIPE.format(shards=max(1, rows // ROWS_PER_SHARD)))
    arguments = command(root, recipe, out, workers)
    whole = measure(arguments)
    found: dict[str, object] = {
        "rows": rows,
        "input_mb": round(size / 1e6),
        "seconds": round(whole.wall_s, 1),
        "rows_per_second": round(rows / whole.wall_s),
        "cpu_seconds": round(whole.cpu_s, 1),
        "peak_anon_mb": round(whole.peak_anon_mb),
        "peak_process_mb": round(whole.peak_process_mb),
        "read_mb": round(whole.read_mb),
    }
    if kill:
        shutil.rmtree(out)
        killed(arguments, after=whole.wall_s / 2)
        again = measure(arguments)
        found["rerun_after_a_kill_at_half"] = round(again.wall_s, 1)
        found["same_fingerprint"] = again.stdout == whole.stdout
    shutil.rmtree(out)
    shutil.rmtree(root)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(build(options.work, options.rows // 10, options.workers, kill=False)), flush=True)
    print(json.dumps(build(options.work, options.rows, options.workers, kill=True)), flush=True)


if __name__ == "__main__":
    main()
