"""Interventions: a model is shown something else than it asked for, or another region is said for it.

They answer what scores alone cannot: does the second look cause the answer? Each is compared with the same rows and
weights without it. What is drawn for a row depends on its id alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from trainer.generation.dialog import Shown
from trainer.generation.policy import Dialog, Policy
from vpt_data import geometry
from vpt_data.dialogue.tokens import REGION, grid
from vpt_data.images import views

#: `col0, row0, col1, row1`, ends included.
Cells: TypeAlias = tuple[int, int, int, int]
#: Id of a row -> encoder -> control vectors, float32 [s * width].
Vectors: TypeAlias = Mapping[str, Mapping[str, npt.NDArray[np.float32]]]


def intervention(
    name: str,
    gold: Mapping[str, Cells],
    k: int,
    expand: int = 0,
    said: Mapping[str, str] | None = None,
    others: Vectors | None = None,
) -> Policy:
    """The policy of `crop=ARM`, `tokens=ARM` or `control=ARM`, one of `evaluation.asking.questions.INTERVENTIONS`.

    gold    id of a row -> the cells of its annotated box on the k x k grid; without one `oracle` changes nothing
    expand  cells by which crops grow, as in `Decoding`
    said    id of a row -> its first turn where nothing is changed, for `tokens`
    others  what takes the place of control vectors, for `control=mean` and `control=swap`
    """
    what, _, arm = name.partition("=")
    if what == "crop":
        return Crop(arm, gold, k, expand)
    return Tokens(arm, gold, k, said or {}) if what == "tokens" else Control(arm, others or {})


class Crop(Policy):
    """Shows another crop for every region that the model named; calls of encoders are left as they are.

    oracle   the cells of the annotated box
    random   a rectangle of the same size, anywhere
    shifted  the rectangle of the same size that shares least with the named one, the farthest of these
    whole    the whole image again
    none     nothing: the model goes on without
    """

    def __init__(self, arm: str, gold: Mapping[str, Cells], k: int, expand: int) -> None:
        self.arm, self.gold, self.k, self.expand = arm, gold, k, expand

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        """The other crops."""
        if self.arm == "none" and any(look.kind == REGION for look in looks):
            return []
        return [views.pixels(dialog.images[0], self._box(dialog, place, look)) for place, look in enumerate(looks)]

    def _box(self, dialog: Dialog, place: int, look: Shown) -> tuple[int, int, int, int] | None:
        if look.kind != REGION or look.cells is None:
            return look.box
        if self.arm == "whole":
            return None
        dice = random.Random(f"{dialog.row['id']}\0{dialog.actions}\0{place}")
        cells = {
            "oracle": lambda named: self.gold.get(dialog.row["id"], named),
            "random": lambda named: moved(named, self.k, dice),
            "shifted": lambda named: shifted(named, self.k),
        }[self.arm](look.cells)
        x0, y0, x1, y1 = geometry.crop([cells], [dialog.images[0].size], self.k, self.expand)[0].tolist()
        return x0, y0, x1, y1


class Tokens(Policy):
    """Says a region for the model, as its first turn: that of the annotated box, or one of the same size anywhere.

    A row without a box answers by itself, and one that says this region without being made to.
    """

    def __init__(self, arm: str, gold: Mapping[str, Cells], k: int, said: Mapping[str, str]) -> None:
        self.arm, self.gold, self.k, self.said = arm, gold, k, said

    def prefix(self, dialog: Dialog) -> str:
        """The region and the end of the turn."""
        cells = self.gold.get(dialog.row["id"])
        if cells is None or dialog.turns:
            return ""
        if self.arm == "random":
            cells = moved(cells, self.k, random.Random(dialog.row["id"]))
        region: str = grid.encode([cells], self.k)[0].as_py()
        return "" if self.said.get(dialog.row["id"]) == region else f"{region}<|im_end|>"


class Control(Policy):
    """Replaces the control vectors of every call.

    zero        zeros
    random      random ones of the same length
    mean, swap  those in `others`; a row without some keeps its own
    """

    def __init__(self, arm: str, others: Vectors) -> None:
        self.arm, self.others = arm, others

    def vectors(self, vectors: Tensor, dialogs: Sequence[Dialog], kinds: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """The same for both routes: what is fed and what steers."""
        if self.arm == "zero":
            zeros = torch.zeros_like(vectors)
            return zeros, zeros
        if self.arm in ("mean", "swap"):
            replaced = vectors.clone()
            for place, (dialog, kind) in enumerate(zip(dialogs, kinds, strict=True)):
                other = self.others.get(dialog.row["id"], {}).get(kind)
                if other is not None:
                    replaced[place] = torch.from_numpy(other).to(vectors).view_as(vectors[place])
            return replaced, replaced
        drawn = torch.stack([_direction(dialog, vectors.shape[1:]) for dialog in dialogs]).to(vectors)
        drawn = drawn * (vectors.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))
        return drawn, drawn


def _direction(dialog: Dialog, shape: torch.Size) -> Tensor:
    seed = random.Random(f"{dialog.row['id']}\0{dialog.actions}").getrandbits(63)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moved(cells: Cells, k: int, dice: random.Random) -> Cells:
    """A rectangle of the same size at a random place of the grid."""
    width, height = cells[2] - cells[0], cells[3] - cells[1]
    col, row = dice.randrange(k - width), dice.randrange(k - height)
    return col, row, col + width, row + height


def shifted(cells: Cells, k: int) -> Cells:
    """The rectangle of the same size that shares the fewest cells with the given one, the farthest of these.

    >>> shifted((0, 1, 1, 2), 8), shifted((0, 0, 7, 7), 8)
    ((6, 6, 7, 7), (0, 0, 7, 7))
    """
    width, height = cells[2] - cells[0], cells[3] - cells[1]
    places = [(col, row, col + width, row + height) for col in range(k - width) for row in range(k - height)]

    def rank(other: Cells) -> tuple[int, int]:
        across = min(cells[2], other[2]) - max(cells[0], other[0]) + 1
        down = min(cells[3], other[3]) - max(cells[1], other[1]) + 1
        distance = (cells[0] - other[0]) ** 2 + (cells[1] - other[1]) ** 2
        return max(across, 0) * max(down, 0), -distance

    return min(places, key=rank)
