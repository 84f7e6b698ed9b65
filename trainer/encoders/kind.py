"""What the trainer has to know of an encoder: the pictures it takes, its tower, and its projector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from trainer.encoders.projector import Projector

if TYPE_CHECKING:
    from trainer.data.vision import Vision


@dataclass(frozen=True, slots=True)
class Tower:
    """A tower of transformers.

    classes   its classes of the model and of the configuration; called, because importing them takes seconds
    width     the width of its features, from its configuration
    features  the features of a last hidden state
    """

    classes: Callable[[], tuple[Any, Any]]
    width: Callable[[Any], int]
    features: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Input:
    """Pictures for a tower of its own.

    tokens   how many tokens a picture takes, whatever its size
    picture  the RGB picture in the size that the tower sees
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
    tower: Tower | None = None
    input: Input | None = None
