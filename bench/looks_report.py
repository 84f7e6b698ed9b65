"""The results of `looks` as markdown: mean and range over the seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Found = dict[str, Any]
ORDER = ("plain", "whole", "random", "own", "oracle")
SHOWN = {
    "own": "the crop that it named",
    "oracle": "the true crop, named for it",
    "whole": "the whole picture",
    "random": "a crop of the true size elsewhere",
}


def report(work: Path, seeds: int) -> str:
    """The tables for RESULTS.md from WORK/results."""
    runs = {
        name: [json.loads((work / "results" / f"{name}-{seed}.json").read_text("utf-8")) for seed in range(seeds)]
        for name in ("plain", "whole", "random", "own", "free")
    }
    parts = [
        [heading(work, seeds)],
        arms(runs),
        controls(runs["own"]),
        free(runs["free"]),
        actions(runs["free"]),
        costs(runs),
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def heading(work: Path, seeds: int) -> str:
    """What was run."""
    rows, every = (
        sum(pq.read_metadata(shard).num_rows for shard in place.glob("train-*.parquet"))
        for place in (work / "arms" / "own", work / "corpus" / "data")
    )
    return (
        "## A second look\n\n"
        f"`python -m bench.looks --work WORK --seeds {seeds}`; torch {version('torch')}, transformers "
        f"{version('transformers')}, one thread a run. Mean over {seeds} seeds (lowest to highest).\n\n"
        "Pictures of 448 x 448 pixels with two to four plates; the model gets 112. It is asked which of eight patterns "
        f"the red plate has. The arms are trained on {rows:,} such rows, free choice on "
        f"{every:,}: there some pictures have no red plate and the answer needs no look, and plates are "
        "counted after a look through a frozen random DINO."
    )


def spread(values: Sequence[float]) -> str:
    """Mean and range.

    >>> spread([0.5, 0.75])
    '0.62 (0.50 to 0.75)'
    """
    return f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def over(runs: Sequence[Found], *keys: str) -> str:
    """Mean and range over the seeds of the values at some keys of a result."""
    values = []
    for run in runs:
        value: Any = run
        for key in keys:
            value = value[key]
        values.append(value)
    return spread(values)


def arms(runs: dict[str, list[Found]]) -> list[str]:
    """Five arms: what they answer, and where they look."""
    first = runs["own"][0]
    usual = first["baseline"]["answer"]
    lines = [
        f"Five arms, {first['steps']:,} steps, {first['tests']:,} held-out rows of pictures that no arm has seen:",
        "",
        "| arm | answer right | region IoU | IoU >= 0.5 |",
        "|---|---:|---:|---:|",
    ]
    for name in ORDER:
        mine = runs["own" if name == "oracle" else name]
        region = ["", ""]
        if name == "oracle":
            region = ["1 (given)", "1 (given)"]
        elif name != "plain":
            region = [over(mine, "region", key) for key in ("iou", "iou_half")]
        lines.append(_line(name, over(mine, "answer", name), *region))
    for kind in ("majority", "chance"):
        region = [f"{first['baseline']['region'][kind][key]:.2f}" for key in ("iou", "iou_half")]
        lines.append(_line(kind, f"{usual[kind]:.2f}", *region))
    return lines


def controls(own: list[Found]) -> list[str]:
    """The model of `own` shown something else than it asked for."""
    lines = [
        "The model of `own` on the same rows, when its second look is something else:",
        "",
        "| shown | answer right |",
        "|---|---:|",
    ]
    return [*lines, *(_line(words, over(own, "answer", name)) for name, words in SHOWN.items())]


def free(runs: list[Found]) -> list[str]:
    """Free choice: kind of action, region, tokens and answer against what needs no picture."""
    first = runs[0]
    kind, region = first["kind_baseline"], first["by_kind"]["region"]["baseline"]
    lines = [
        f"Free choice, {first['steps']:,} steps, {first['tests']:,} held-out rows:",
        "",
        "| figure | model | majority | chance |",
        "|---|---:|---:|---:|",
        _line("kind of action", over(runs, "kind"), f"{kind['majority']:.2f}", f"{kind['chance']:.2f}"),
        _line("the same, majority for each question", "", f"{kind['question']:.2f}", ""),
        _line("region token: start", over(runs, "tokens_right", "start"), "", ""),
    ]
    for name in ("x", "y"):
        usual = [f"{region[name][which]:.2f}" for which in ("majority", "chance")]
        lines.append(_line(f"region token: {name}", over(runs, "tokens_right", name), *usual))
    for key, words in (("iou", "region IoU"), ("iou_half", "region IoU >= 0.5")):
        usual = [f"{region['region'][which][key]:.2f}" for which in ("majority", "chance")]
        lines.append(_line(words, over(runs, "region", key), *usual))
    usual = [f"{first['answer_baseline'][which]:.2f}" for which in ("majority", "chance")]
    lines.append(_line("answer", over(runs, "answer"), *usual))
    for name, found in first["by_kind"].items():
        usual = [f"{found['baseline']['answer'][which]:.2f}" for which in ("majority", "chance")]
        rows = f"answer where the corpus expects {name} ({found['rows']:,} rows)"
        lines.append(_line(rows, over(runs, "by_kind", name, "answer"), *usual))
    return lines


def actions(runs: list[Found]) -> list[str]:
    """Which action was taken where, over all seeds."""
    names = sorted({name for run in runs for name in run["kinds"]})
    counted = ", ".join(f"{name} {sum(run['kinds'].get(name, 0) for run in runs):,}" for name in names)
    return [f"Expected action -> action taken, rows of all seeds: {counted}."]


def costs(runs: dict[str, list[Found]]) -> list[str]:
    """What the arms cost: rows, tokens, operations."""
    lines = [
        "What a run costs (mean of the seeds; operations forward and backward, of the rows as they are trained on):",
        "",
        "| run | rows | tokens a row | MFLOP a row | s a step | loss at the end |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, mine in runs.items():
        tokens = sum(run["tokens"] / run["samples"] for run in mine) / len(mine)
        seconds = sum(run["seconds"] / run["steps"] for run in mine) / len(mine)
        flops = f"{mine[0]['flops'] / 1e6:.0f}"
        loss = over([run["curve"][-1] for run in mine], "loss")
        lines.append(_line(name, f"{mine[0]['samples']:,}", f"{tokens:.0f}", flops, f"{seconds:.2f}", loss))
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
