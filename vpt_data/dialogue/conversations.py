"""Conversations of a source, taken apart: where the first question holds its image, and what follows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import (
    ROLES,
    SYSTEM,
    Bools,
    Ints,
    Lists,
    Messages,
    alternating,
    column,
    flags,
    numbers,
    repeated,
    unlist,
)
from vpt_data.dialogue.tokens import IMAGE, neutralise
from vpt_data.errors import RawError


def image_counts(annotations: pa.Table) -> Ints:
    """How many images each record has."""
    return numbers(pc.list_value_length(column(annotations, "images")), 0)


class Talk(NamedTuple):
    """Conversations taken apart. `row` are the records that are one; the other fields follow it.

    at     int64 [R], position in `content` of the first question (a system turn may precede it)
    starts, ends   bool [R], where the first question holds its own `<image>`
    body   string [R], the first question without it
    """

    turns: Lists
    role: pa.Array
    content: pa.Array
    row: Ints
    at: Ints
    starts: pa.Array
    ends: pa.Array
    body: pa.Array


def take_apart(annotations: pa.Table) -> Talk:
    """The conversations among the records of an ANNOTATION table."""
    turns = unlist(column(annotations, "turns"))
    role = pc.struct_field(turns.values, "role")
    content = pc.fill_null(pc.struct_field(turns.values, "content"), "")
    row = np.flatnonzero(turns.lengths)
    led = flags(pc.equal(role, ROLES[SYSTEM]))[turns.starts[row]] & (turns.lengths[row] > 1)
    at = turns.starts[row] + led
    question, seen = content.take(pa.array(at)), pa.array(image_counts(annotations)[row] > 0)
    starts = pc.and_(pc.starts_with(question, IMAGE), seen)
    ends = pc.and_not(pc.and_(pc.ends_with(question, IMAGE), seen), starts)
    body = pc.if_else(starts, pc.replace_substring(question, IMAGE, "", max_replacements=1), question)
    if pc.any(ends).as_py():
        body = pc.if_else(ends, pc.utf8_slice_codeunits(question, 0, -len(IMAGE)), body)
    return Talk(turns, role, content, row, at, starts, ends, body)


def check(annotations: pa.Table, talk: Talk, take: str, pair: Ints) -> None:
    """RawError unless every record is a conversation that alternates and has its question `pair` (int64 [N]).

    Messages get their roles by position, so any other must not come this far.
    """
    place = _places(talk)
    role = alternating(place)
    right = np.zeros(len(pair), np.bool_)
    right[talk.row] = True
    right[talk.turns.rows[~flags(pc.equal(talk.role, pa.array(ROLES).take(pa.array(role))))]] = False
    spoken = np.zeros(len(pair), np.int64)
    spoken[talk.row] = talk.turns.lengths[talk.row] - (talk.at - talk.turns.starts[talk.row])
    right &= (spoken % 2 == 0) & (spoken >= 2 * pair + 2)
    if not right.all():
        row = int(np.argmin(right))
        key, found = column(annotations, "key")[row].as_py(), int(spoken[row])
        raise RawError(
            f"Take {take}, record {key}: a conversation of {found} turns; expected user and assistant "
            f"in turn, and at least {2 * int(pair[row]) + 2} of them; the reader should have dropped it."
        )


def _places(talk: Talk) -> Ints:
    """How far each turn is behind the first question of its conversation; a system turn is at -1."""
    return np.arange(len(talk.content)) - np.repeat(talk.at, talk.turns.lengths[talk.row])


def first_questions(talk: Talk, seen: Bools, marker: str) -> pa.Array:
    """First questions with the marker where the source has its `<image>`, before the text if it has none."""
    bare = pc.and_not(pa.array(seen), pc.or_(talk.starts, talk.ends))
    before = pc.if_else(talk.starts, marker, pc.if_else(bare, f"{marker}\n", ""))
    after = pc.if_else(talk.ends, marker, "")
    return pc.binary_join_element_wise(before, neutralise(talk.body)[0], after, "")


def later_questions(talk: Talk, at: pa.Array, shown: Ints, marker: str, suffixes: Iterable[str]) -> pa.Array:
    """Questions split off a conversation, each with the image and the answer format of the first."""
    question, start = neutralise(talk.content.take(at))[0], pc.utf8_rtrim(talk.body, "\n")
    suffix = pa.repeat("", len(question))
    for known in suffixes:
        lacks = pc.and_not(pc.ends_with(start, known), pc.ends_with(question, known))
        suffix = pc.if_else(lacks, known, suffix)
    return pc.binary_join_element_wise(repeated(f"{marker}\n", shown), question, suffix, "")


def later_turns(talk: Talk) -> Messages:
    """All turns behind the first question."""
    place = _places(talk)
    rest = place > 0
    text = neutralise(talk.content.filter(pa.array(rest)))[0]
    return Messages(talk.turns.rows[rest], alternating(place[rest]), text)
