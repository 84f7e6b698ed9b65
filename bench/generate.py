"""How fast rows are answered: batches of one against larger ones, in one run.

    python -m bench.generate                                   the tiny model with random weights, sample corpus
    python -m bench.generate --checkpoint RUN --data CORPUS --device cuda --dtype bfloat16

Every row is made to look at a region and answers with as many tokens as it may, so that all batches do the same work.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import vpt_data
from trainer.data.encode import RowEncoder
from trainer.entry import sample_corpus
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, before_answer
from trainer.generation.opening import loaded
from trainer.generation.policy import Dialog, Policy
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import grid
from vpt_data.report import table


class Looks(Policy):
    """Looks at a region in the middle, then speaks to the limit."""

    def __init__(self, encoder: RowEncoder) -> None:
        self.region = grid.encode([[2, 2, 5, 5]], encoder.k)[0].as_py() + "<|im_end|>"
        self.speaks = torch.ones(encoder.tokenizer.get_vocab_size(), dtype=torch.bool)
        self.speaks[[encoder.token_id("<|im_end|>"), encoder.token_id("<|endoftext|>")]] = False

    def prefix(self, dialog: Dialog) -> str:
        return "" if dialog.turns else self.region

    def allowed(self, dialog: Dialog) -> torch.Tensor:
        return self.speaks


def random_model(rows: list[dict[str, Any]]) -> tuple[VPTModel, RowEncoder]:
    """The tiny model with DINO."""
    tokenizer = tiny_tokenizer([message["content"] for row in rows for message in row["messages"]], "dino")
    return tiny_model(tokenizer, ["dino"]), RowEncoder(tokenizer.backend_tokenizer, tiny_vision())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", default=None)
    parser.add_argument("--split", default="train")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1 if options.device == "cpu" else torch.get_num_threads())
    corpus = vpt_data.open_corpus(options.data or str(sample_corpus()))
    rows = list(islice((row for row in corpus.rows(options.split) if len(row["messages"]) > 1), options.rows))
    given = options.checkpoint
    model, encoder = loaded(given, options.device, options.dtype) if given else random_model(rows)
    prompts, how = [before_answer(row) for row in rows], Decoding(max_new_tokens=6 + options.tokens)
    lines = []
    for batch in (1, 4, 16, 64):
        begin = time.perf_counter()
        records = list(answer(model, encoder, prompts, how, Looks(encoder), batch=batch))
        seconds = time.perf_counter() - begin
        said = sum(len(record.tokens) for record in records)
        lines.append((f"{batch}", f"{len(records) / seconds:.1f}", f"{said / seconds:.0f}", f"{said}"))
    print(table(("batch", "rows/s", "tokens/s", "tokens"), lines))


if __name__ == "__main__":
    main()
