"""What the trainer has to know of an extra encoder: the pictures it takes, its tower, and its projector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from trainer.encoders.projector import Projector

if TYPE_CHECKING:
    from trainer.data.vision import Vision


class Tower(nn.Module):
    """A frozen encoder of transformers that gives features for a projector; each kind has a class of its own."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder: Any = encoder

    @staticmethod
    def classes() -> tuple[Any, Any]:
        """Its classes of the model and of the configuration; imported when called, because that takes seconds."""
        raise NotImplementedError

    @classmethod
    def made(cls, config: dict[str, Any]) -> Tower:
        """One of random weights from the numbers of its configuration."""
        model, of = cls.classes()
        return cls(model(of(**config)))

    @classmethod
    def fetched(cls, name: str) -> Tower:
        """One from a folder or from the Hub, in float32 whatever its file is in."""
        return cls(cls.classes()[0].from_pretrained(name, dtype=torch.float32))

    @property
    def width(self) -> int:
        """Width of its features."""
        return self.encoder.config.hidden_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of pictures [n, 3, H, W], as the projector takes them."""
        return self.features(self.encoder(pixel_values=pixels).last_hidden_state)

    def features(self, states: Tensor) -> Tensor:
        """Of the last hidden state."""
        return states


@dataclass(frozen=True, slots=True)
class Input:
    """Pictures for a tower of its own.

    tokens   how many tokens a picture takes, whatever its size
    picture  the RGB or grey picture in the size that the tower sees
    pixels   what the tower takes of a normalised picture [3, H, W]
    limit    longer side of what the published pipeline hands to the tower's image processor
    """

    tokens: Callable[[Vision], int]
    picture: Callable[[Vision, Image.Image], Image.Image]
    pixels: Callable[[Vision, Tensor], Tensor]
    limit: Callable[[Vision], int] = lambda vision: vision.longest


@dataclass(frozen=True, slots=True)
class Kind:
    """An encoder; `patches` of its tower become one token. Without tower and input it is the model's own."""

    projector: type[Projector]
    patches: int
    tower: type[Tower] | None = None
    input: Input | None = None
