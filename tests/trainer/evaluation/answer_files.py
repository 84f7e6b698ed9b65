"""Files of answers to the sample, and what an evaluation makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from trainer.evaluate import main
from trainer.evaluation import items
from vpt_data import geometry
from vpt_data.dialogue.tokens import grid
from vpt_data.dialogue.tokens.reencode import action_turn

POPE, GQA = "POPE_action_test", "GQA_region_test"


def looks_of(asked: items.Items, k: int = 8) -> list[list[str]]:
    """The look that each row expects, as its right tokens; none where its box is not known."""
    found = []
    for expected, box, size in zip(asked.texts("expected"), asked.boxes, asked.sizes, strict=True):
        if expected == "region" and not np.isnan(box).any():
            found.append([grid.encode(geometry.cells([box], [size], k), k)[0].as_py()])
        else:
            found.append([action_turn("dino")] if expected == "reencode" else [])
    return found


def gold(asked: items.Items, k: int = 8) -> list[dict[str, Any]]:
    rows = zip(asked.texts("id"), looks_of(asked, k), asked.texts("answers"), strict=True)
    return [{"id": name, "turns": [*looks, answers[0]]} for name, looks, answers in rows]


def written(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def results(corpus: Path, rows: Iterable[Mapping[str, Any]], folder: Path, *more: str) -> dict[str, Any]:
    done = evaluate("--predictions", written(folder, rows), "--data", corpus, "--out", folder / "out", "--json", *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found == json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    return found
