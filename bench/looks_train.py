"""The model of `looks` and its training: the tiny classes, a little larger, made so that minutes are enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainer import config as configs
from trainer.data.corpus import Corpus, open_corpus
from trainer.data.encode import SYSTEM, RowEncoder
from trainer.data.loader import Loader, Settings
from trainer.encoders.dino import DinoTower
from trainer.model.tiny import TINY_TOWERS, tiny_shape, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from trainer.training import loop, run_folder
from trainer.training.parallel import Ranks
from trainer.training.setup import choose_trained

ROWS = 16  # of a step
SETTINGS = ("optim.lr=3e-3", "optim.beta2=0.95", "run.save_every=1000000", "run.keep=1", f"data.rows={ROWS}")
DEPTH = 3
TOWER = {"embed_dim": 64, "num_heads": 4}


def texts(corpus: Corpus) -> Iterator[str]:
    """What the rows say, with the words of the chat template."""
    for row in corpus.stream(0, 0):
        yield f"system\n{SYSTEM}"
        yield from (f"{message['role']}\n{message['content']}" for message in row.fields["messages"])


def tokenizer_of(place: Path) -> Any:
    """A tokenizer from all training rows of a corpus, so that all runs have the same one."""
    return tiny_tokenizer(texts(open_corpus(str(place))), "dino")


def model_of(tokenizer: Any) -> VPTModel:
    """The model of every run, with random weights; DINO is frozen."""
    shape = tiny_shape(tokenizer)
    shape.text["num_hidden_layers"] = DEPTH
    shape.vision.update(TOWER)
    # The language model is drawn before the tower, as when the results were made.
    model = VPTModel(shape.build(), ["dino"], {"dino": DinoTower.made(TINY_TOWERS["dino"])})
    choose_trained(model, ["*"], ["towers.*"])
    return model


def trained(
    place: Path, takes: list[str], tokenizer: Any, out: Path, seed: int, steps: int
) -> tuple[VPTModel, RowEncoder, list[dict[str, Any]]]:
    """A model after some steps on a corpus, its row encoder, and what was noted at each step; `out` is its folder."""
    config = configs.load("tiny", [f"seed={seed}", f"optim.steps={steps}", *SETTINGS])
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    corpus = open_corpus(str(place), takes=takes)
    encoder = RowEncoder(tokenizer.backend_tokenizer, tiny_vision(), cutoff=config.data.cutoff)
    epochs = -(-steps * ROWS // corpus.rows) + 1
    settings = Settings(rows=ROWS, tokens=config.data.tokens, epochs=epochs, seed=seed)
    model = model_of(tokenizer)
    out.mkdir(parents=True)
    loader = Loader(corpus, encoder, settings)
    loop.Trainer(model, loader, config, out, Ranks(0, 1, torch.device("cpu")), steps).run()
    return model, encoder, run_folder.read_metrics(out)


def summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What a training cost, and how it went at five moments (means of fifty steps)."""
    every = max(1, len(entries) // 5)
    curve = []
    for end in range(every, len(entries) + 1, every):
        last = entries[max(0, end - 50) : end]
        names = sorted({name for entry in last for name in entry["accuracy"]})
        means: dict[str, float] = {"step": end, "loss": _mean([entry["loss"] for entry in last])}
        means |= {name: _mean([e["accuracy"][name] for e in last if name in e["accuracy"]]) for name in names}
        curve.append(means)
    total = {key: sum(entry[key] for entry in entries) for key in ("samples", "tokens", "seconds")}
    return {**total, "skipped": sum(len(entry["skipped"]) for entry in entries), "curve": curve}


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)
