"""A model that was trained, ready to be asked."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer import config as configs
from trainer.data.encode import RowEncoder
from trainer.model.vpt import VPTModel
from trainer.training import setup


def loaded(run: Path, device: str = "cpu", dtype: str = "float32") -> tuple[VPTModel, RowEncoder]:
    """Model and row encoder of a run, or of one of its checkpoints, with weights in `float32` or `bfloat16`."""
    found = setup.open_run(run, getattr(torch, dtype))
    return found.model.to(device), setup.row_encoder(found.config, found.tokenizer, found.vision)


def published(
    weights: Path, name: str, overrides: tuple[str, ...] = (), device: str = "cpu", dtype: str = "float32"
) -> tuple[VPTModel, RowEncoder]:
    """The same from the weights of a whole model, such as released ones, with shapes of the configuration's base."""
    found = setup.open_published(weights, configs.load(name, overrides), getattr(torch, dtype))
    return found.model.to(device), setup.row_encoder(found.config, found.tokenizer, found.vision)
