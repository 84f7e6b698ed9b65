"""The default run with several seeds, asked as `python -m trainer.evaluate` asks one: does the look cause the answer?

    python -m bench.plates --work WORK --seeds 3

For each seed a run, `trainer.run --config plates --set seed=N`, is evaluated with all interventions. What WORK has is
not made again. The markdown goes to stdout. For a model that was trained without any look, and is blind therefore, see
the arm `plain` of bench.looks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench import seeds
from trainer.entry import PLATES, corpus_place
from trainer.evaluation import folder
from vpt_data.corpus.reader import open_corpus
from vpt_data.synthetic.plates import PATTERNS, SITES

OWN = "own"
WHAT = {
    OWN: "its own crop",
    "crop=oracle": "the true crop",
    "crop=shifted": "a crop far from its own",
    "crop=random": "a crop of its size, anywhere",
    "crop=whole": "the whole picture again",
    "crop=none": "nothing",
    "tokens=oracle": "the true region, said for it",
    "tokens=random": "any region of its size, said for it",
}
REGIONS = {
    "iou_cells": "IoU with the cells of the box",
    "iou_box": "IoU with the box",
    "gold_iou": "the same of the right cells",
}


def made(work: Path, seed: int) -> Path:
    """The folder with a run of a seed and its evaluation `own`."""
    place = work / f"seed-{seed}"
    run = place / "plates"
    again = ["--resume"] if run.is_dir() else []
    _command("trainer.run", "--config", "plates", "--set", f"seed={seed}", "--out", str(run), *again)
    _command("trainer.evaluate", "--checkpoint", str(run), "--out", str(place / OWN), "--intervene", "all")
    return place


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=sys.stderr)


def records(place: Path, name: str) -> pa.Table:
    """What became of the rows under an arm, sorted by id."""
    path = place / OWN if name == OWN else place / OWN / name
    return pq.read_table(path / folder.RECORDS).sort_by("id")


def majority(asked: pa.Table) -> list[float]:
    """The scores of the most frequent answer that the training rows have to each question."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in open_corpus(corpus_place(PLATES)).rows("train", ["question", "answers"], images=False):
        found[row["question"]].update(row["answers"][:1])
    usual = {question: answers.most_common(1)[0][0] for question, answers in found.items()}
    rows = zip(asked["question"].to_pylist(), asked["answers"].to_pylist(), strict=True)
    return [float(usual[question] in answers) for question, answers in rows]


def report(places: Sequence[Path]) -> Iterator[str]:
    """The figures of the runs in these folders, as markdown."""
    found = {name: [records(place, name) for place in places] for name in WHAT}
    own = found[OWN]
    pictures = own[0]["image"].to_pylist()

    def of(tables: Sequence[pa.Table], column: str) -> list[list[float]]:
        return [table[column].to_pylist() for table in tables]

    yield f"{own[0].num_rows} rows on {len(set(pictures))} pictures, {len(places)} seeds"
    yield ""
    yield "Mean over seeds, its 95 % interval over pictures, and each seed:"
    yield ""
    yield seeds.line("shown", "answer right", "minus its own crop")
    yield seeds.line("---", "---:", "---:")
    for name, tables in found.items():
        less = "" if name == OWN else seeds.difference(of(tables, "score"), of(own, "score"), pictures)
        yield seeds.line(WHAT[name], seeds.figure(of(tables, "score"), pictures), less)
    yield seeds.line("majority by question", seeds.figure([majority(own[0])], pictures), "")
    yield seeds.line("chance", f"{1 / len(PATTERNS):.3f}", "")
    yield ""
    yield seeds.line("region of its own", "figure")
    yield seeds.line("---", "---:")
    for column, title in REGIONS.items():
        yield seeds.line(title, seeds.figure(of(own, column), pictures))
    yield seeds.line("chance of the right place", f"{1 / SITES**2:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("\n".join(report([made(options.work, seed) for seed in range(options.seeds)])))


if __name__ == "__main__":
    main()
