"""How many tokens a picture takes in a Qwen2-VL model, on columns; the trainer resizes pictures by the same rule."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vpt_data.columns import Ints

#: Longer side of a picture in pixels at most: the two settings of the paper.
PRESETS: Final = (224, 512)
#: A token is a square of so many pixels: patches of 14, two by two of them.
UNIT: Final = 28


def fitted(sizes: npt.ArrayLike, longest: int, unit: int = UNIT, least: int = 0) -> Ints:
    """The size that the model sees: sizes [N, 2] px -> int64 [N, 2] px, both sides whole tokens (smart resize).

    longest   longer side at most, before it is rounded to whole tokens
    unit      side of a token in pixels
    least     pixels of a picture at least; never less than two tokens squared

    >>> fitted([[1024, 683], [7, 5]], 512)
    array([[504, 336],
           [ 56,  56]])
    """
    given = np.asarray(sizes, np.int64).reshape(-1, 2)
    scale = np.minimum(1.0, longest / given.max(axis=1, keepdims=True))
    # The size that the published pipeline hands to the processor: not long, and a token at least each way.
    sides = np.maximum((given * scale).astype(np.int64), unit)
    whole: Ints = np.rint(sides / unit).astype(np.int64) * unit
    least = max(least, (2 * unit) ** 2)
    small = whole.prod(axis=1) < least
    grow = np.sqrt(least / sides[small].prod(axis=1, keepdims=True))  # in this order, as Qwen2-VL rounds
    whole[small] = np.ceil(sides[small] * grow / unit).astype(np.int64) * unit
    return whole


def tokens(sizes: npt.ArrayLike, longest: int, unit: int = UNIT) -> Ints:
    """Tokens of each picture: sizes [N, 2] px -> int64 [N].

    >>> tokens([[1024, 683], [7, 5]], 512)
    array([216,   4])
    """
    count: Ints = fitted(sizes, longest, unit).prod(axis=1) // unit**2
    return count
