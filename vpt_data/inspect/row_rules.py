"""What holds for every row of a corpus, whatever its recipe, checked on columns, a row group at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import (
    ASSISTANT,
    ROLES,
    SYSTEM,
    USER,
    Bools,
    Ints,
    Lists,
    alternating,
    column,
    flags,
    numbers,
    quads,
    sizes_of_images,
    unlist,
)
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens import FAMILIES, SPECIAL_TOKEN, depth, grid, placeholders
from vpt_data.dialogue.tokens.grid import decode, encode
from vpt_data.dialogue.tokens.reencode import decode_action, token_pattern
from vpt_data.report import Broken
from vpt_data.store import DECODE_ERRORS

RULES: Final = {
    "roles": "messages are an optional system turn, then user and assistant alternate, an assistant last",
    "content": "every message has a text",
    "placeholder_role": "placeholders stand in user turns",
    "placeholder_count": "there are as many placeholders as views",
    "view_turn": "the n-th placeholder is in the turn that views[n] names",
    "view_encoder": "the n-th placeholder is that of the encoder that views[n] names",
    "view_image": "a view's image is one of the row's images",
    "image_info": "there is one image_info for each image, and every image has a path",
    "cells": "cells are in 0..k-1, near before far (legacy: k and more may occur)",
    "crop": "a view's box is what its cells show",
    "box": "a view's box has pixels and is inside its image",
    "region_tokens": "region tokens of assistant turns are well formed",
    "region_cells": "region tokens name the cells of the views in the next turn, in order",
    "action_tokens": "calls of an encoder in assistant turns are well formed",
    "action_kinds": "an assistant turn asks for one kind of look",
    "action_views": "a call is answered by a view of that encoder in the next turn, and no other is there",
    "special_text": "only assistant turns hold tokens of the form <|...|>, those of looks",
    "spoken_tokens": "spans of tokens that ask for no look are whole, and stand in assistant turns",
    "tokenizer": "a row with depth tokens says which tokenizer made them, the same as the rows beside it",
    "looks": "looks lists the views after the first question: region, or the encoder",
    "expected": "evaluation rows hold no look",
    "prompted": "the first question of a prompted row ends with its prompt sentence",
    "image_bytes": "embedded images have bytes, and in reference mode none has",
    "image_sha256": "image_info.sha256 is that of the image's bytes",
}

_NO_LIMIT: Final = 10**9

Quads = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A row group with the columns that rules look at taken apart; `legacy` are the takes with that edge."""

    samples: pa.Table
    legacy: frozenset[str]
    embed: bool

    @cached_property
    def messages(self) -> Lists:
        """All messages."""
        return unlist(column(self.samples, "messages"))

    @cached_property
    def role(self) -> Ints:
        """The role of each message as index into ROLES, -1 for any other."""
        names = pc.struct_field(self.messages.values, "role")
        return numbers(pc.index_in(names, value_set=pa.array(ROLES)), -1)

    @cached_property
    def text(self) -> pa.Array:
        """The text of each message, null as empty."""
        return pc.fill_null(pc.struct_field(self.messages.values, "content"), "")

    @cached_property
    def first_user(self) -> Ints:
        """The position of each row's first question in its messages."""
        led = np.zeros(len(self.samples), np.int64)
        some = self.messages.lengths > 0
        led[some] = self.role[self.messages.starts[some]] == SYSTEM
        return led

    @cached_property
    def views(self) -> Lists:
        """All views."""
        return unlist(column(self.samples, "views"))

    def view(self, name: str) -> Ints:
        """A number of each view, -1 for null."""
        return numbers(pc.struct_field(self.views.values, name), -1)

    @cached_property
    def turn(self) -> Ints:
        """The turn of each view."""
        return self.view("turn")

    @cached_property
    def encoder(self) -> Ints:
        """The encoder of each view as index into `placeholders()`, -1 for any other."""
        names = pc.struct_field(self.views.values, "encoder")
        return numbers(pc.index_in(names, value_set=pa.array(list(placeholders()))), -1)

    @cached_property
    def at(self) -> Ints:
        """The message each view's turn is, as index into `messages.values`, -1 where there is none."""
        rows = self.views.rows
        there = (self.turn >= 0) & (self.turn < self.messages.lengths[rows])
        return np.where(there, self.messages.starts[rows] + self.turn, -1)

    @cached_property
    def cells(self) -> tuple[Quads, Bools, Bools]:
        """Cells [V, 4], which are given, and which of them are in order and on the grid."""
        cells, given = quads(self.views.values, "cells", -1)
        legacy = flags(pc.is_in(column(self.samples, "take"), pa.array(sorted(self.legacy), pa.string())))
        limit = np.where(legacy, _NO_LIMIT, self.k)[self.views.rows]
        good = (cells >= 0).all(axis=1) & (cells < limit[:, None]).all(axis=1)
        good &= (cells[:, :2] <= cells[:, 2:]).all(axis=1) & (self.k[self.views.rows] >= 1)
        return cells, given, given & good

    @cached_property
    def k(self) -> Ints:
        """The side of each row's grid."""
        return numbers(column(self.samples, "k"), 0)

    @cached_property
    def images(self) -> Lists:
        """All images."""
        return unlist(column(self.samples, "images"))

    @cached_property
    def info(self) -> Lists:
        """All image_info."""
        return unlist(column(self.samples, "image_info"))

    @cached_property
    def sizes(self) -> Ints:
        """Width and height [V, 2] of each view's image, 0 where unknown."""
        sizes = sizes_of_images(self.views, self.info)
        sizes[(sizes < 1).any(axis=1)] = 0
        return sizes


RowCheck = Callable[[Rows], Iterator[tuple[str, Ints]]]


def broken(samples: pa.Table, legacy: frozenset[str], embed: bool) -> Iterator[Broken]:
    """The rules that do not hold in a row group: how many rows break each, and the id of the first.

    legacy   takes whose cells may be beyond the grid
    embed    whether the images are in the rows (as an Arrow dictionary)
    """
    ids = column(samples, "id")
    for name, which in breaking(samples, legacy, embed):
        yield Broken(name, len(which), str(ids[int(which[0])].as_py()))


def breaking(samples: pa.Table, legacy: frozenset[str], embed: bool | None) -> Iterator[tuple[str, Ints]]:
    """The same with the numbers of the rows that break each rule, ascending.

    embed   None: the bytes of images were not read, and the rules about them are left out
    """
    rows = Rows(samples, legacy, bool(embed))
    for row_check in _ALL if embed is not None else _WITHOUT_BYTES:
        for name, bad in row_check(rows):
            if len(which := np.unique(bad)):
                yield name, which


def _roles(rows: Rows) -> Iterator[tuple[str, Ints]]:
    spoken = rows.messages
    position = np.arange(len(rows.role)) - spoken.starts[spoken.rows] - rows.first_user[spoken.rows]
    due = alternating(position)
    talked = spoken.lengths - rows.first_user
    yield (
        "roles",
        np.concatenate([spoken.rows[due != rows.role], np.flatnonzero((talked < 2) | (talked % 2 == 1))]),
    )
    yield "content", spoken.rows[flags(pc.is_null(pc.struct_field(spoken.values, "content")))]


def _placeholders(rows: Rows) -> Iterator[tuple[str, Ints]]:
    spoken = rows.messages
    words_of_encoders = list(placeholders().values())
    each = [numbers(pc.count_substring(rows.text, word), 0) for word in words_of_encoders]
    counts = np.stack(each, axis=1)
    shown = counts.sum(axis=1)
    yield "placeholder_role", spoken.rows[(shown > 0) & (rows.role != USER)]
    total = np.bincount(spoken.rows, weights=shown, minlength=len(rows.samples)).astype(np.int64)
    equal = total == rows.views.lengths
    yield "placeholder_count", np.flatnonzero(~equal)
    where = np.repeat(np.arange(len(shown)), shown)
    which = np.repeat(counts.argmax(axis=1), shown)
    for message in np.flatnonzero((counts > 0).sum(axis=1) > 1):
        found = re.findall("|".join(words_of_encoders), rows.text[int(message)].as_py())
        which[where == message] = [words_of_encoders.index(word) for word in found]
    # Only rows with equal counts can be laid side by side, placeholder by view.
    words, views = equal[spoken.rows[where]], equal[rows.views.rows]
    where, which, row = where[words], which[words], rows.views.rows[views]
    yield "view_turn", row[where != rows.at[views]]
    yield "view_encoder", row[which != rows.encoder[views]]


def _pictures(rows: Rows) -> Iterator[tuple[str, Ints]]:
    image = rows.view("image")
    yield "view_image", rows.views.rows[(image < 0) | (image >= rows.images.lengths[rows.views.rows])]
    pathless = rows.images.rows[flags(pc.is_null(pc.struct_field(rows.images.values, "path")))]
    yield "image_info", np.concatenate([np.flatnonzero(rows.images.lengths != rows.info.lengths), pathless])


def _geometry(rows: Rows) -> Iterator[tuple[str, Ints]]:
    cells, given, good = rows.cells
    row = rows.views.rows
    yield "cells", row[given & ~good]
    box, boxed = quads(rows.views.values, "box", -1)
    sized = rows.sizes.any(axis=1)
    margin = numbers(column(rows.samples, "crop_margin_cells"), 0)
    rule = np.stack([rows.k, np.maximum(margin, 0)], axis=1)[row]
    for k, cells_around in np.unique(rule[good & sized], axis=0).tolist():
        mine = good & sized & (rule == [k, cells_around]).all(axis=1)
        crop = geometry.crop(cells[mine], rows.sizes[mine], k, cells_around)
        yield "crop", row[mine][(crop != box[mine]).any(axis=1) | ~boxed[mine]]
    free = boxed & ~given
    legacy = flags(pc.is_in(column(rows.samples, "take"), pa.array(sorted(rows.legacy), pa.string())))
    inside = (box[:, :2] >= 0).all(axis=1) & (~sized | (box[:, 2:] <= rows.sizes).all(axis=1))
    wrong = (box[:, :2] >= box[:, 2:]).any(axis=1) | ~(inside | legacy[row])
    yield "box", row[free & wrong]


def _regions(rows: Rows) -> Iterator[tuple[str, Ints]]:
    """Compares texts as a whole with what the cells spell; only texts with more in them are decoded."""
    cells, given, good = rows.cells
    before = np.where((rows.turn > 0) & (rows.at > 0), rows.at - 1, -1)
    ready = good & (before >= 0)
    words = encode(np.where(good[:, None], cells, 0), int(max(rows.k.max(initial=1), 1)))
    named = pc.match_substring_regex(rows.text, grid.TOKEN)
    suspect = flags(named) & (rows.role == ASSISTANT)
    order = np.flatnonzero(ready)[np.argsort(before[ready], kind="stable")]
    lengths = np.bincount(before[ready], minlength=len(rows.role))
    listed = pa.ListArray.from_arrays(
        pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), words.take(pa.array(order))
    )
    due = pc.binary_join(listed, "")
    todo = np.flatnonzero((suspect | (lengths > 0)) & ~flags(pc.equal(due, rows.text)))
    # A row whose cells are off the grid is reported once, under `cells`.
    off = np.unique(rows.views.rows[given & ~good])
    faulty, other = [], []
    for message in todo[~np.isin(rows.messages.rows[todo], off)].tolist():
        row = int(rows.messages.rows[message])
        views = order[before[order] == message]
        found = decode(rows.text[message].as_py(), _limit(rows, row))
        if found.faults:
            faulty.append(row)
        elif found.cells != [tuple(quad) for quad in cells[views].tolist()]:
            other.append(row)
    yield "region_tokens", np.asarray(faulty, np.int64)
    yield "region_cells", np.concatenate([np.asarray(other, np.int64), rows.views.rows[good & ~ready]])


def _limit(rows: Rows, row: int) -> int:
    return _NO_LIMIT if rows.samples["take"][row].as_py() in rows.legacy else max(int(rows.k[row]), 1)


def _actions(rows: Rows) -> Iterator[tuple[str, Ints]]:
    """Each distinct text with a call in it is decoded once: nearly all are nothing but the call."""
    speaking, encoders = rows.role == ASSISTANT, list(placeholders())
    calling = np.flatnonzero(flags(pc.match_substring_regex(rows.text, token_pattern())) & speaking)
    texts = rows.text.take(pa.array(calling)).dictionary_encode()
    calls = np.zeros((len(rows.role), len(encoders)), np.int64)
    faulty, mixed = np.zeros(len(rows.role), bool), np.zeros(len(rows.role), bool)
    which = numbers(texts.indices, 0)
    for number, text in enumerate(texts.dictionary.to_pylist()):
        here = calling[which == number]
        found = decode_action(text)
        kinds = {call.encoder for call in found}
        faulty[here] = any(call.fault for call in found)
        mixed[here] = len(kinds) > 1 or re.search(grid.TOKEN, text) is not None
        for call in found:
            calls[here, encoders.index(call.encoder)] += 1
    row = rows.messages.rows
    yield "action_tokens", row[faulty]
    yield "action_kinds", row[mixed]
    # Calls of a turn against the views of other encoders in the turn behind it; the first question may have
    # such views without a call (alignment).
    answered = np.zeros_like(calls)
    later = (rows.at > 0) & (rows.turn > rows.first_user[rows.views.rows]) & (rows.encoder > 0)
    np.add.at(answered, (rows.at[later] - 1, rows.encoder[later]), 1)
    yield "action_views", row[(calls != answered).any(axis=1) & ~faulty]


def _special(rows: Rows) -> Iterator[tuple[str, Ints]]:
    special = np.flatnonzero(flags(pc.match_substring_regex(rows.text, SPECIAL_TOKEN)))
    speaking = rows.role[special] == ASSISTANT
    left = pc.replace_substring_regex(rows.text.take(pa.array(special)), f"{grid.TOKEN}|{token_pattern()}", "")
    unknown = flags(pc.match_substring_regex(left, SPECIAL_TOKEN))
    yield "special_text", rows.messages.rows[special[~speaking | unknown]]


def _spoken(rows: Rows) -> Iterator[tuple[str, Ints]]:
    for family in FAMILIES.values():
        if family.look:
            continue
        said = np.flatnonzero(flags(pc.match_substring_regex(rows.text, family.pattern)))
        texts = rows.text.take(pa.array(said)).to_pylist()
        wrong = [
            rows.role[at] != ASSISTANT or bool(family.faults(text, 0)) for at, text in zip(said, texts, strict=True)
        ]
        yield "spoken_tokens", rows.messages.rows[said[np.array(wrong, bool)]]
    made = pc.match_substring_regex(rows.text, depth.TOKEN)
    with_codes = np.unique(rows.messages.rows[flags(made) & (rows.role == ASSISTANT)])
    metas = column(rows.samples, "meta").take(pa.array(with_codes)).to_pylist()
    names = np.array([tokenizer_of(meta) for meta in metas], object)
    yield "tokenizer", with_codes[(names == "") | (names != (names[0] if len(names) else ""))]


class _Meta(msgspec.Struct):
    tokenizer_id: str = ""


def tokenizer_of(meta: str | None) -> str:
    """The tokenizer that made the codes of a row, "" where it does not say."""
    try:
        return msgspec.json.decode(meta or "{}", type=_Meta).tokenizer_id
    except DECODE_ERRORS:
        return ""


def _looks(rows: Rows) -> Iterator[tuple[str, Ints]]:
    looks = unlist(column(rows.samples, "looks"))
    later = rows.turn > rows.first_user[rows.views.rows]
    shown = rows.views.rows[later]
    names = pa.array(["region", *list(placeholders())[1:]])
    due = names.take(pa.array(np.maximum(rows.encoder[later], 0)))
    counts = np.bincount(shown, minlength=len(rows.samples))
    equal = counts == looks.lengths
    listed, meant = looks.values.filter(pa.array(equal[looks.rows])), due.filter(pa.array(equal[shown]))
    differ = ~flags(pc.equal(listed, meant))
    yield "looks", np.concatenate([np.flatnonzero(~equal), looks.rows[equal[looks.rows]][differ]])
    evaluation = flags(column(rows.samples, "expected").is_valid())
    yield "expected", np.flatnonzero(evaluation & ((looks.lengths > 0) | (counts > 0)))


def _prompts(rows: Rows) -> Iterator[tuple[str, Ints]]:
    prompted = flags(column(rows.samples, "prompted")) & (rows.messages.lengths > rows.first_user)
    template = column(rows.samples, "template")
    asking = {name: entry.prompt for name, entry in TEMPLATES.items() if entry.prompt}
    for name, sentence in asking.items():
        which = np.flatnonzero(prompted & flags(pc.equal(template, name)))
        asked = rows.text.take(pa.array(rows.messages.starts[which] + rows.first_user[which]))
        yield "prompted", which[~flags(pc.ends_with(asked, sentence))]
    yield "prompted", np.flatnonzero(prompted & ~flags(pc.is_in(template, pa.array(list(asking)))))


def _bytes(rows: Rows) -> Iterator[tuple[str, Ints]]:
    data = pc.struct_field(rows.images.values, "bytes")
    given = flags(data.is_valid())
    yield "image_bytes", rows.images.rows[given != rows.embed]
    if not rows.embed or len(rows.images.values) != len(rows.info.values):
        return
    blobs = data if pa.types.is_dictionary(data.type) else data.dictionary_encode()
    views = (blobs.dictionary[number].as_buffer() for number in range(len(blobs.dictionary)))
    digests = pa.array([hashlib.sha256(memoryview(view)).hexdigest() for view in views], pa.string())
    stated = pc.struct_field(rows.info.values, "sha256")
    same = flags(pc.equal(digests.take(blobs.indices), stated))
    yield "image_sha256", rows.images.rows[given & ~same]


_WITHOUT_BYTES: Final[tuple[RowCheck, ...]] = (
    _roles, _placeholders, _pictures, _geometry, _regions, _actions, _special, _spoken, _looks, _prompts,
)  # fmt: skip
_ALL: Final = (*_WITHOUT_BYTES, _bytes)
