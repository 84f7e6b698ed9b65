"""A run whose model has learned nothing, asked the questions of the sample: it says something, which is enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import torch
from click.testing import CliRunner, Result
from helpers import end_to_end

from trainer import config
from trainer.evaluate import main
from trainer.model.tiny import tiny_model, tiny_tokenizer
from trainer.training import checkpoint, setup

torch.set_num_threads(1)

SPLITS = ("GQA_region_test", "POPE_action_test", "LLaVA_COCO_single_action_test")
#: What is the same whatever shares a batch and however often a process died; not how long it took.
SAME = [
    "id", "turns", "answer", "ended", "fault", "tokens", "prompt_tokens", "score", "invalid", "triggered", "cells",
    "intervened",
]  # fmt: skip


def made(folder: Path, corpus: Path, seed: int) -> Path:
    """A run, as training would have left it."""
    torch.manual_seed(seed)
    texts = [message["content"] for row in end_to_end.rows(corpus) for message in row["messages"]]
    tokenizer = tiny_tokenizer(texts, "dino")
    model = tiny_model(tokenizer, ["dino"])
    folder.mkdir()
    setup.save_shapes(model, tokenizer, folder)
    (folder / "config.json").write_text(json.dumps(msgspec.to_builtins(config.load("tiny"))))
    with checkpoint.Writer(folder) as writer:
        writer.save(model, torch.optim.AdamW(model.parameters()), {"step": 1})
    return folder


def command(run: Path, corpus: Path, out: Path, *arguments: str, rows: int = 2) -> list[str]:
    """The first rows of some splits."""
    splits = [word for split in SPLITS for word in ("--split", split)]
    given = ["--checkpoint", run, "--data", corpus, "--out", out, "--limit", rows, *splits, "--max-new-tokens", 6]
    return [str(argument) for argument in (*given, *arguments)]


def evaluate(run: Path, corpus: Path, out: Path, *arguments: str, rows: int = 2) -> Result:
    return CliRunner().invoke(main, command(run, corpus, out, *arguments, rows=rows))


def records(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "records.parquet").select(SAME).to_pylist()
    return rows


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found
