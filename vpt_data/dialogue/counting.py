"""Dialogues about how many there are of something, with and without boxes in pixel tokens, as AURORA's are.

Category and boxes are those of the record (see the source `aurora_count`), sentences those of `prompts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry, hashing
from vpt_data.columns import column, quads, relist, sizes_of_images, unlist
from vpt_data.dialogue import prompts
from vpt_data.dialogue.plurals import plural
from vpt_data.dialogue.reasoning import Said
from vpt_data.dialogue.tokens import neutralise, pixels

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


class _Meta(msgspec.Struct):
    category: str


def boxes(annotations: pa.Table, _: RenderRule) -> Said:
    """Where all of a kind are: one of five questions, by the hash of the record, and a line for each box."""
    things, listed = _things(annotations), _boxes(annotations)
    which = hashing.seeded(column(annotations, "key"), 0) % np.uint64(len(prompts.BOXES_OF))
    questions = [prompts.BOXES_OF[at].format(plural=name) for at, name in zip(which.tolist(), things, strict=True)]
    answers = [
        prompts.BOXES.format(plural=name, boxes=_lines(each)) if each else prompts.NO_BOXES.format(plural=name)
        for name, each in zip(things, listed, strict=True)
    ]
    return Said(pa.array(questions, pa.string()), pa.array(answers, pa.string()))


def number(annotations: pa.Table, _: RenderRule) -> Said:
    """How many there are: a number at once."""
    questions = [prompts.HOW_MANY.format(plural=name) for name in _things(annotations)]
    return Said(
        pa.array(questions, pa.string()), pa.array([str(len(each)) for each in _boxes(annotations)], pa.string())
    )


def number_by_boxes(annotations: pa.Table, _: RenderRule) -> Said:
    """The same, after a line for each box."""
    things, listed = _things(annotations), _boxes(annotations)
    questions = [(prompts.HOW_MANY + prompts.THINK_OF_BOXES).format(plural=name) for name in things]
    answers = [
        prompts.COUNT_REASONING.format(plural=name, boxes=_lines(each), count=len(each))
        if each
        else prompts.COUNT_NONE.format(plural=name)
        for name, each in zip(things, listed, strict=True)
    ]
    return Said(pa.array(questions, pa.string()), pa.array(answers, pa.string()))


def explain(_: RenderRule) -> str:
    """What the card says of dialogues with boxes."""
    example = pixels.encode([[12, 0, 99, 335]])[0].as_py()
    return (
        f"A box is four pixel tokens, left, top, right and bottom on the image squashed to {pixels.SIDE} x "
        f"{pixels.SIDE}, ends included: `{example}`."
    )


def explain_number(_: RenderRule) -> str:
    """What the card says of questions about a number without boxes."""
    return "A question about a number is answered with the number alone."


def _things(annotations: pa.Table) -> list[str]:
    """The plural of each record's category."""
    metas = (msgspec.json.decode(text, type=_Meta) for text in column(annotations, "meta").to_pylist())
    found: list[str] = neutralise(pa.array([plural(meta.category) for meta in metas], pa.string()))[0].to_pylist()
    return found


def _boxes(annotations: pa.Table) -> list[list[str]]:
    """The boxes of each record as pixel tokens, in the record's order."""
    given = unlist(column(annotations, "regions"))
    corners = geometry.sort_corners(quads(given.values, "box", np.nan)[0])[0]
    sizes = sizes_of_images(given, unlist(column(annotations, "images")))
    words = pixels.encode(geometry.cells(corners, sizes, pixels.SIDE, "inside"))
    found: list[list[str]] = relist(given.lengths, pc.cast(words, pa.string()), pa.list_(pa.string())).to_pylist()
    return found


def _lines(boxes: list[str]) -> str:
    return "\n".join(prompts.BOX_LINE.format(number=number, box=box) for number, box in enumerate(boxes, 1))
