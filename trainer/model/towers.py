"""The frozen towers of extra encoders; `clip` is the model's own vision tower and needs none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from trainer.encoders import KINDS
from trainer.encoders import kind as kinds


class Tower(nn.Module):
    """An encoder of transformers that gives features for a projector; `kind` is an entry of KINDS."""

    def __init__(self, kind: str, encoder: Any) -> None:
        super().__init__()
        self.kind, self.encoder = kind, encoder

    @property
    def features(self) -> int:
        """Width of its features."""
        return _tower(self.kind).width(self.encoder.config)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pictures [n, 3, H, W] -> dino: features [n, N, width] without CLS; sam: maps [n, width, H/16, W/16]."""
        return _tower(self.kind).features(self.encoder(pixel_values=pixels).last_hidden_state)


def make_tower(kind: str, config: dict[str, Any]) -> Tower:
    """A tower of random weights from the numbers of its configuration."""
    model, of = _tower(kind).classes()
    return Tower(kind, model(of(**config)))


def fetch_tower(kind: str, name: str) -> Tower:
    """A tower from a folder or from the Hub."""
    return Tower(kind, _tower(kind).classes()[0].from_pretrained(name))


def empty_tower(kind: str, name: str) -> Tower:
    """A tower of random weights with the sizes of one in a folder or on the Hub."""
    model, of = _tower(kind).classes()
    return Tower(kind, model(of.from_pretrained(name)))


def has_tower(kind: str) -> bool:
    """Whether an encoder has a tower of its own."""
    return KINDS[kind].tower is not None


def _tower(kind: str) -> kinds.Tower:
    tower = KINDS[kind].tower
    assert tower is not None, f"{kind} is the model's own tower"
    return tower
