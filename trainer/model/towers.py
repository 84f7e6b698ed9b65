"""The frozen extra encoders: DINOv2 and SAM. `clip` is the model's own vision tower and needs none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, SamVisionConfig, SamVisionModel


class Tower(nn.Module):
    """An encoder of transformers that gives features for a projector; `kind` is dino or sam."""

    def __init__(self, kind: str, encoder: Any) -> None:
        super().__init__()
        self.kind, self.encoder = kind, encoder

    @property
    def features(self) -> int:
        """Width of its features."""
        return self.encoder.config.hidden_size if self.kind == "dino" else self.encoder.config.output_channels

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures [n, 3, H, W] -> dino: features [n, N, width] without CLS; sam: maps [n, width, H/16, W/16]."""
        states = self.encoder(pixel_values=pixels).last_hidden_state
        return states[:, 1:] if self.kind == "dino" else states


def make_tower(kind: str, config: dict[str, Any]) -> Tower:
    """A tower of random weights from the numbers of its configuration."""
    model, of = _classes(kind)
    return Tower(kind, model(of(**config)))


def fetch_tower(kind: str, name: str) -> Tower:
    """A tower from a folder or from the Hub."""
    return Tower(kind, _classes(kind)[0].from_pretrained(name))


def _classes(kind: str) -> tuple[Any, Any]:
    return {"dino": (Dinov2Model, Dinov2Config), "sam": (SamVisionModel, SamVisionConfig)}[kind]
