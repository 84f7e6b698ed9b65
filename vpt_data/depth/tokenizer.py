"""A depth map as 100 codes and back: the protocol of depth tokenizers, and the one that needs no weights.

The same token strings of two tokenizers mean different things. So the identity of the tokenizer travels with every row,
and a build refuses to mix two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpt_data.depth.maps import Map
from vpt_data.dialogue.tokens.depth import LENGTH
from vpt_data.dialogue.tokens.depth import SIDE as GRID
from vpt_data.errors import UsageError, unknown_name

#: Width and height of decoded maps.
SIZE: Final = 320

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:/+-]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two codes comparable, as one line of text (`str`): the `tokenizer_id` of a row.

    architecture  name of the tokenizer
    weights       sha256 of its weights in hex, `none` without any
    filter        how a map is resized for it
    values        the range of values that it reads
    depth_model   what made the depth maps: the name of a model or sensor, `unstated`
    """

    architecture: str
    weights: str
    filter: str
    values: str
    depth_model: str

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.depth_model):
            raise UsageError(
                f"The depth model {self.depth_model!r} becomes part of an id; use letters, digits and _.@:/+- only."
            )

    def __str__(self) -> str:
        return (
            f"{self.architecture} weights={self.weights} filter={self.filter} values={self.values} "
            f"depth={self.depth_model}"
        )


class DepthTokenizer(Protocol):
    """What every depth tokenizer does; the same maps give the same codes, in one batch or one by one."""

    def identity(self, depth_model: str) -> Identity:
        """Who it is, for maps that `depth_model` made."""

    def encode(self, maps: Sequence[Map]) -> npt.NDArray[np.uint8]:
        """Codes uint8[N, 100] of N maps uint8[H, W], which may differ in size."""

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Maps uint8[N, 320, 320] of codes [N, 100]."""


class Pool:
    """The mean of each of 10 x 10 cells, in 128 steps: no weights, and the same everywhere.

    All sums are whole numbers, so that no rounding depends on the machine or the batch.
    """

    NAME: Final = "pool10x10-q128"

    def identity(self, depth_model: str) -> Identity:
        """Its `Identity`."""
        return Identity(self.NAME, "none", "area", "0..255", depth_model)

    def encode(self, maps: Sequence[Map]) -> npt.NDArray[np.uint8]:
        """Codes uint8[N, 100]: code c is a mean of 2c to less than 2c + 2.

        >>> Pool().encode([np.full((30, 40), 255, np.uint8)]).shape
        (1, 100)
        """
        found = np.zeros((len(maps), LENGTH), np.uint8)
        for number, depth in enumerate(maps):
            high, wide = depth.shape
            sums = _overlap(high) @ (depth.astype(np.int64) @ _overlap(wide).T)
            found[number] = (sums // (2 * high * wide)).ravel()
        return found

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Maps in which each cell has the middle of its step, with even slopes between the cells."""
        cells = (codes.reshape(-1, GRID, GRID).astype(np.uint16) * 2 + 1).astype(np.uint8)
        pictures = [Image.fromarray(cell).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for cell in cells]
        return np.stack([np.asarray(picture) for picture in pictures]) if pictures else np.zeros((0, SIZE, SIZE), "u1")


def _overlap(side: int) -> npt.NDArray[np.int64]:
    """How much of each pixel is in each cell, in tenths of a pixel: int64[10, side]; each row adds up to `side`."""
    cell, pixel = np.arange(GRID)[:, None] * side, np.arange(side)[None, :] * GRID
    shared: npt.NDArray[np.int64] = np.maximum(np.minimum(cell + side, pixel + GRID) - np.maximum(cell, pixel), 0)
    return shared


TOKENIZERS: Final[dict[str, type[DepthTokenizer]]] = {Pool.NAME: Pool}


def tokenizer(name: str) -> DepthTokenizer:
    """The tokenizer of this name; UsageError with the names that exist otherwise."""
    if name not in TOKENIZERS:
        raise unknown_name("depth tokenizer", name, TOKENIZERS)
    return TOKENIZERS[name]()
