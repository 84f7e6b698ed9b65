"""DINOv2: the centre of the picture, as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from trainer.encoders.kind import Input, Kind, Tower
from trainer.encoders.projector import Projector

if TYPE_CHECKING:
    from trainer.data.vision import Vision

_STRETCH = 32  # a picture longer than this is cut at its ends before the centre crop, which would not show them


class DinoTower(Tower):
    """Features [n, N, width] of patches."""

    @staticmethod
    def classes() -> tuple[Any, Any]:
        """Those of DINOv2."""
        from transformers import Dinov2Config, Dinov2Model

        return Dinov2Model, Dinov2Config

    def features(self, states: Tensor) -> Tensor:
        """All but the first, which is that of the whole picture (CLS)."""
        return states[:, 1:]


def _tokens(vision: Vision) -> int:
    return (vision.dino // vision.dino_patch) ** 2


def _picture(vision: Vision, image: Image.Image) -> Image.Image:
    side = vision.dino
    image = _shortened(image)
    short = side * 8 // 7
    least = min(image.size)
    width, height = (short if edge == least else int(short * edge / least) for edge in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def _shortened(image: Image.Image) -> Image.Image:
    """The middle of a very long picture: at 256 pixels across, 4000 x 3 pixels would take a third of a gigabyte."""
    width, height = image.size
    wide, high = min(width, _STRETCH * height), min(height, _STRETCH * width)
    if (wide, high) == (width, height):
        return image
    left, top = (width - wide) // 2, (height - high) // 2
    return image.crop((left, top, left + wide, top + high))


KIND = Kind(Projector, 1, DinoTower, Input(_tokens, _picture, pixels=lambda _, scaled: scaled))
