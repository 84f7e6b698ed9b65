"""Pictures for the three vision encoders: how many tokens one takes, and its pixels.

Worker processes cut and resize (`picture`, uint8, a tenth of the bytes); `pixels` normalises and cuts patches where the
model is. Sizes are (width, height) as in Pillow, grids and tensors have rows first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpt_data.errors import UsageError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_STRETCH = 32  # a picture longer than this is cut at its ends before DINO's centre crop, which would not show them


@dataclass(frozen=True)
class Vision:
    """What the encoders expect; the defaults are those of Qwen2-VL, DINOv2 and SAM at 512 pixels.

    longest        longer side of a picture for the model's own tower at most (paper: 224 and 512)
    patch, merge   its patches are `patch` pixels, `merge` x `merge` of them are a token, `frames` equal ones a patch
    dino           side of the input in pixels, which is the centre of the picture, as published
    sam            side of the padded input; a token is `sam_stride` x `sam_stride` pixels
    """

    longest: int = 512
    patch: int = 14
    merge: int = 2
    frames: int = 2
    mean: tuple[float, float, float] = _CLIP[0]
    std: tuple[float, float, float] = _CLIP[1]
    dino: int = 224
    dino_patch: int = 14
    sam: int = 1024
    sam_stride: int = 64

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
        if encoder == "dino":
            return (self.dino // self.dino_patch) ** 2, None
        if encoder == "sam":
            return (self.sam // self.sam_stride) ** 2, None
        width, height = self._fitted(size)
        grid = (1, height // self.patch, width // self.patch)
        return grid[1] * grid[2] // self.merge**2, grid

    def _fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height in whole tokens, with two tokens squared at least (Qwen2-VL's smart resize)."""
        unit, scale = self.patch * self.merge, min(1.0, self.longest / max(size))
        # The size that the published pipeline hands to the processor: not long, and a token at least each way.
        sides = [max(int(side * scale), unit) for side in size]
        width, height = (round(side / unit) * unit for side in sides)
        if width * height < (2 * unit) ** 2:
            grow = 2 * unit / math.sqrt(sides[0] * sides[1])
            width, height = (math.ceil(side * grow / unit) * unit for side in sides)
        return width, height

    def picture(self, encoder: str, image: Image.Image) -> Tensor:
        """The RGB picture in the size that the encoder sees: uint8[3, H, W] (SAM: not padded yet)."""
        if encoder == "dino":
            image = self._for_dino(image)
        elif encoder == "sam":
            scale = self.sam / max(image.size)
            width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        else:
            image = image.resize(self._fitted(image.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def _for_dino(self, image: Image.Image) -> Image.Image:
        side = self.dino
        image = _shortened(image)
        short = side * 8 // 7
        least = min(image.size)
        width, height = (short if edge == least else int(short * edge / least) for edge in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))

    def pixels(self, encoder: str, picture: Tensor) -> Tensor:
        """What the encoder takes, float32, on the device of the picture.

        vlm, clip: patches [h * w, 3 * frames * patch * patch] in the order of the Qwen2-VL image processor (the four
        patches of a token together); dino, sam: [3, H, W].
        """
        own = encoder not in ("dino", "sam")
        scale = (self.mean, self.std) if own else _IMAGENET
        mean, std = (torch.tensor(part, device=picture.device).view(3, 1, 1) for part in scale)
        scaled = (picture / 255 - mean) / std
        if encoder == "sam":
            # SAM pads what is normalised already: the border is the mean colour.
            padding = (0, self.sam - scaled.shape[2], 0, self.sam - scaled.shape[1])
            return torch.nn.functional.pad(scaled, padding)
        return self._patches(scaled) if own else scaled

    def _patches(self, scaled: Tensor) -> Tensor:
        rows, columns = (side // (self.patch * self.merge) for side in scaled.shape[1:])
        blocks = scaled.view(3, rows, self.merge, self.patch, columns, self.merge, self.patch)
        ordered = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
        return ordered.expand(-1, -1, -1, -1, -1, self.frames, -1, -1).flatten(4).flatten(0, 3)


def _shortened(image: Image.Image) -> Image.Image:
    """The middle of a very long picture: at 256 pixels across, 4000 x 3 pixels would take a third of a gigabyte."""
    width, height = image.size
    wide, high = min(width, _STRETCH * height), min(height, _STRETCH * width)
    if (wide, high) == (width, height):
        return image
    left, top = (width - wide) // 2, (height - high) // 2
    return image.crop((left, top, left + wide, top + high))
