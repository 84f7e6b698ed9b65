"""Dialogues of one turn in which the model writes what it perceives before it answers, as AURORA's are.

Question and answer are put together from what a record holds besides text (`meta`, see the source `aurora_depth`), with
sentences of `prompts` and tokens of `tokens.depth`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.columns import column
from vpt_data.dialogue import prompts
from vpt_data.dialogue.tokens import depth

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


class Said(NamedTuple):
    """What is asked and answered in N records, string [N] each; the answer holds tokens that are meant."""

    question: pa.Array
    answer: pa.Array


class _Meta(msgspec.Struct):
    codes: list[int]
    points: list[tuple[str, int, int, int]] = []


def depth_map(annotations: pa.Table, _: RenderRule) -> Said:
    """The depth map of the image, and nothing else."""
    question = pa.repeat(prompts.DEPTH_MAP, annotations.num_rows)
    return Said(question, _spans(_metas(annotations)))


def closest_point(annotations: pa.Table, _: RenderRule) -> Said:
    """Which of the marked points is the closest: a letter at once."""
    answers = [prompts.POINT_ANSWER.format(closest=_closest(meta)) for meta in _metas(annotations)]
    return Said(pa.repeat(prompts.CLOSEST_POINT, annotations.num_rows), pa.array(answers, pa.string()))


def closest_point_by_depth(annotations: pa.Table, _: RenderRule) -> Said:
    """The same, after the coordinates of the points and the depth map."""
    metas = _metas(annotations)
    maps = _spans(metas).to_pylist()
    answers = [
        prompts.POINT_REASONING.format(
            places=",".join(
                prompts.POINT_PLACE.format(label=label, x=x, y=y) for label, x, y, _ in sorted(meta.points)
            ),
            depth=codes,
            closest=_closest(meta),
        )
        for meta, codes in zip(metas, maps, strict=True)
    ]
    question = prompts.CLOSEST_POINT + prompts.THINK_OF_DEPTH
    return Said(pa.repeat(question, annotations.num_rows), pa.array(answers, pa.string()))


def explain(_: RenderRule) -> str:
    """What the card says of these dialogues."""
    return (
        f"A depth map is {depth.LENGTH} codes of 0 to {depth.CODES - 1} on {depth.SIDE} x {depth.SIDE} cells, "
        f"row by row: `{depth.START}<DEPTH_17>` and so on to `{depth.END}`. `tokenizer_id` in `meta` says what made "
        "the codes; codes of another tokenizer mean something else."
    )


def explain_points(_: RenderRule) -> str:
    """What the card says of questions about points without reasoning."""
    return "Points are marked on the picture with a red circle and a letter; the answer is the letter of the closest."


def _metas(annotations: pa.Table) -> list[_Meta]:
    return [msgspec.json.decode(text, type=_Meta) for text in column(annotations, "meta").to_pylist()]


def _spans(metas: list[_Meta]) -> pa.StringArray:
    return depth.encode(np.array([meta.codes for meta in metas], np.int64).reshape(-1, depth.LENGTH))


def _closest(meta: _Meta) -> str:
    return max(meta.points, key=lambda point: point[3])[0]
