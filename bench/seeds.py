"""Runs with several seeds: each is made once and kept as a file; figures over them have intervals over pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluation import statistics
from vpt_data import store

Found = dict[str, Any]
Scores = Sequence[Sequence[float]]  # of each seed, of each row


def arguments(description: str | None, arms: Sequence[str], steps: int) -> argparse.Namespace:
    """The options of a program that makes runs of several arms: work, seeds, arms, steps."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms), help="default: all")
    parser.add_argument("--steps", type=int, default=steps)
    return parser.parse_args()


def make(work: Path, names: Sequence[str], seeds: int, one: Callable[[str, int], Found]) -> None:
    """Write WORK/NAME-SEED.json for each run that has none yet; processes with other names can share the folder."""
    work.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in names:
            path = work / f"{name}-{seed}.json"
            if not path.is_file():
                store.write(path, json.dumps(one(name, seed)).encode())
                print(f"{name} {seed} done", file=sys.stderr, flush=True)


def read(work: Path, name: str) -> list[Found]:
    """The runs of a name that there are, by seed."""
    paths = sorted(work.glob(f"{name}-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def figure(scores: Scores, pictures: Sequence[str]) -> str:
    """Mean over seeds and rows, its 95 % interval over pictures, and the mean of each seed.

    >>> figure([[1, 1, 0, 0], [1, 1, 0, 1]], ["a", "b", "c", "d"])
    '0.62 [0.00, 1.00] (0.50 0.75)'
    """
    found = statistics.Resampled(_columns(scores), pictures).interval()
    each = " ".join(f"{np.mean(seed):.2f}" for seed in scores)
    return f"{found.value:.2f} [{found.low or 0:.2f}, {found.high or 0:.2f}] ({each})"


def difference(ours: Scores, theirs: Scores, pictures: Sequence[str]) -> str:
    """The mean of ours minus that of theirs, its 95 % interval over pictures, and p."""
    found = statistics.difference(_columns(ours), _columns(theirs), pictures)
    return f"{found.value:.2f} [{found.low or 0:.2f}, {found.high or 0:.2f}], p = {found.p or 0:.4f}"


def _columns(scores: Scores) -> statistics.Floats:
    return statistics.mean_columns(np.mean(np.asarray(scores, np.float64), axis=0))


def line(*cells: str) -> str:
    """A line of a table in markdown."""
    return f"| {' | '.join(cells)} |"
