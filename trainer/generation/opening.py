"""A model that was trained, ready to be asked: with as many threads as its configuration says (`run.threads`).

More of them than free cores wait for each other: with other work on both cores a small model answered 15 times slower.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from trainer import config as configs
from trainer.data.encode import RowEncoder
from trainer.model.vpt import VPTModel
from trainer.training import setup
from trainer.training.setup import Loaded


def loaded(
    run: Path, device: str = "cpu", dtype: str = "float32", longest: int | None = None
) -> tuple[VPTModel, RowEncoder]:
    """Model and row encoder of a run, or of one of its checkpoints, with weights in `float32` or `bfloat16`.

    longest  longer side of pictures in pixels at most (`Vision.longest`); None: as it was trained
    """
    return _ready(setup.open_run(run, getattr(torch, dtype)), device, longest)


def published(
    weights: Path,
    name: str,
    overrides: tuple[str, ...] = (),
    device: str = "cpu",
    dtype: str = "float32",
    longest: int | None = None,
) -> tuple[VPTModel, RowEncoder]:
    """The same from the weights of a whole model, such as released ones, with shapes of the configuration's base."""
    return _ready(setup.open_published(weights, configs.load(name, overrides), getattr(torch, dtype)), device, longest)


def _ready(found: Loaded, device: str, longest: int | None) -> tuple[VPTModel, RowEncoder]:
    if found.config.run.threads:
        torch.set_num_threads(found.config.run.threads)
    vision = found.vision if longest is None else replace(found.vision, longest=longest)
    return found.model.to(device), setup.row_encoder(found.config, found.tokenizer, vision)
