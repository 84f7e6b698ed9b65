"""What makes a record unusable whatever the recipe, found by columns for all sources alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import ROLES, USER, column, flags, unlist
from vpt_data.schema import Reason
from vpt_data.store import UNSAFE_PATH

Mask = npt.NDArray[np.bool_]


def faults(table: pa.Table) -> tuple[list[tuple[Reason, str, Mask]], Mask]:
    """What makes a record unusable whatever the recipe; a record counts under the first fault that fits.

    Also which records have an empty answer: of no use for training, and part of an evaluation set all the same.
    """
    found: list[tuple[Reason, str, Mask]] = []
    seen = np.zeros(len(table), bool)
    no_question, no_answer = _empty_turns(table)
    for reason, detail, bad in (
        (Reason.UNSAFE_PATH, "the image path leads out of the raw root", _unsafe(table)),
        (Reason.MALFORMED, "a box coordinate is not a finite number", _not_finite(table)),
        (Reason.EMPTY_QUESTION, "a question is empty", no_question | flags(_blank(column(table, "question")))),
    ):
        found.append((reason, detail, bad & ~seen))
        seen |= bad
    return found, no_answer | _empty_answer(table)


def _any_row(lists: pa.Array, bad: pa.Array) -> Mask:
    """Per row: is any element of its list bad (null counts as bad)?"""
    found = np.zeros(len(lists), bool)
    found[unlist(lists).rows[pc.fill_null(bad, True).to_numpy(zero_copy_only=False)]] = True
    return found


def _unsafe(table: pa.Table) -> Mask:
    listed = column(table, "images")
    paths = listed.flatten().field("path")
    return _any_row(listed, pc.match_substring_regex(paths, UNSAFE_PATH))


def _not_finite(table: pa.Table) -> Mask:
    regions = column(table, "regions")
    boxes = regions.flatten().field("box")
    found = np.zeros(len(table), bool)
    flat = boxes.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    rows = unlist(regions).rows
    if boxes.null_count:
        found[rows[boxes.is_null().to_numpy(zero_copy_only=False)]] = True
        rows = rows[boxes.is_valid().to_numpy(zero_copy_only=False)]
    found[rows[~np.isfinite(flat).all(axis=1)]] = True
    return found


def _blank(texts: pa.Array) -> pa.Array:
    """Texts that hold nothing but blanks and the image; null counts as not blank."""
    starts = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"\0", np.uint8)
    first = data[np.minimum(starts[:-1], len(data) - 1)]
    # Few texts begin like one that could be blank: with a blank, `<`, or beyond ASCII (some blanks are).
    maybe = (starts[:-1] == starts[1:]) | (first <= ord(" ")) | (first == ord("<")) | (first >= 0x80)
    maybe &= texts.is_valid().to_numpy(zero_copy_only=False)
    found = np.zeros(len(texts), bool)
    places = np.flatnonzero(maybe)
    bare = pc.replace_substring(texts.take(pa.array(places)), "<image>", "")
    found[places] = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(bare)), 0).to_numpy(zero_copy_only=False)
    return pa.array(found)


def _empty_answer(table: pa.Table) -> Mask:
    answers = unlist(column(table, "answers"))
    found: Mask = answers.lengths == 0
    first = answers.values.take(pa.array(answers.starts[~found]))
    found[np.flatnonzero(~found)[flags(pc.or_(_blank(first), first.is_null()))]] = True
    return found


def _empty_turns(table: pa.Table) -> tuple[Mask, Mask]:
    """Conversations in which a user turn holds nothing but the image, and those with an empty assistant turn."""
    turns = column(table, "turns")
    if turns.null_count == len(turns):
        return np.zeros(len(table), bool), np.zeros(len(table), bool)
    role, content = turns.flatten().flatten()
    bare = flags(_blank(content))
    places = np.flatnonzero(bare)
    asks = flags(pc.equal(role.take(pa.array(places)), ROLES[USER]))
    rows = unlist(turns).rows[places]
    no_question, no_answer = np.zeros(len(table), bool), np.zeros(len(table), bool)
    no_question[rows[asks]] = True
    no_answer[rows[~asks]] = True
    return no_question, no_answer


REJECTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
