"""Pictures for all vision encoders: how many tokens one takes, and its pixels.

Worker processes cut and resize (`picture`, uint8, a tenth of the bytes); `pixels` normalises and cuts patches where the
model is. Sizes are (width, height) as in Pillow, grids and tensors have rows first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.encoders import KINDS
from trainer.encoders.kind import Input
from vpt_data.errors import UsageError
from vpt_data.images.tokens import fitted

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Vision:
    """What the encoders expect; the defaults are those of Qwen2-VL, DINOv2 and SAM at 512 pixels.

    longest        longer side of a picture for the model's own tower at most (paper: 224 and 512)
    least          pixels of such a picture at least, and never less than two tokens squared
    patch, merge   its patches are `patch` pixels, `merge` x `merge` of them are a token, `frames` equal ones a patch
    dino           side of the input in pixels, which is the centre of the picture, as published
    sam            side of the padded input; a token is `sam_stride` x `sam_stride` pixels
    nearest        shrink pictures to `longest` (SAM: to its side) by nearest neighbour first, as the published pipeline
    """

    longest: int = 512
    least: int = 0
    patch: int = 14
    merge: int = 2
    frames: int = 2
    mean: tuple[float, float, float] = _CLIP[0]
    std: tuple[float, float, float] = _CLIP[1]
    dino: int = 224
    dino_patch: int = 14
    sam: int = 1024
    sam_stride: int = 64
    nearest: bool = False

    def __post_init__(self) -> None:
        unit = self.patch * self.merge
        # Beyond 200 tokens a side a picture could be too thin for the processor (ratio 200 at most).
        if not unit <= self.longest <= 200 * unit:
            raise UsageError(f"vision.longest is {self.longest} pixels, expected {unit} to {200 * unit}")

    def tokens(self, encoder: str, size: tuple[int, int]) -> tuple[int, tuple[int, int, int] | None]:
        """How many tokens a picture takes through an encoder, and its grid (t, h, w) in patches if it has one.

        >>> Vision().tokens("vlm", (1024, 683))
        (216, (1, 24, 36))
        """
        if (own := _input(encoder)) is not None:
            return own.tokens(self), None
        width, height = self._fitted(size)
        grid = (1, height // self.patch, width // self.patch)
        return grid[1] * grid[2] // self.merge**2, grid

    def _fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        return _fitted(size, self.longest, self.patch * self.merge, self.least)

    def picture(self, encoder: str, image: Image.Image) -> Tensor:
        """An RGB or grey picture in the size that the encoder sees: uint8[H, W, 3] (SAM: not padded yet)."""
        own, size = _input(encoder), image.size
        if self.nearest:
            image = image.resize(_shrunk(size, own.limit(self) if own else self.longest), Image.Resampling.NEAREST)
        if own is not None:
            image = own.picture(self, image)
        else:
            image = image.resize(self._fitted(size), Image.Resampling.BICUBIC)
        # Grey until here: filters take a third of the time, and every channel gets the same values.
        return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))

    def pixels(self, encoder: str, picture: Tensor) -> Tensor:
        """What the encoder takes, float32, on the device of the picture.

        vlm, clip: patches [h * w, 3 * frames * patch * patch] in the order of the Qwen2-VL image processor (the four
        patches of a token together); encoders with a tower of their own: [3, H, W].
        """
        own = _input(encoder)
        scale = (self.mean, self.std) if own is None else _IMAGENET
        mean, std = _on_device(scale, picture.device)
        scaled = (picture.permute(2, 0, 1) / 255 - mean) / std
        return self._patches(scaled) if own is None else own.pixels(self, scaled)

    def _patches(self, scaled: Tensor) -> Tensor:
        rows, columns = (side // (self.patch * self.merge) for side in scaled.shape[1:])
        blocks = scaled.reshape(3, rows, self.merge, self.patch, columns, self.merge, self.patch)
        ordered = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
        return ordered.expand(-1, -1, -1, -1, -1, self.frames, -1, -1).flatten(4).flatten(0, 3)


@lru_cache(4096)
def _fitted(size: tuple[int, int], longest: int, unit: int, least: int) -> tuple[int, int]:
    width, height = fitted([size], longest, unit, least)[0].tolist()
    return width, height


@cache
def _on_device(scale: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Mean and deviation float32[2, 3, 1, 1]; kept, because the way to a GPU would be waited for."""
    return torch.tensor(scale, device=device)[:, :, None, None]


def _shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height with the longer one `longest` at most, rounded down as in the published pipeline."""
    scale = min(1.0, longest / max(size))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _input(encoder: str) -> Input | None:
    """What the pictures of an encoder with a tower of its own are; None: they are those of the model's."""
    return KINDS[encoder].input if encoder in KINDS else None
