"""Arrow plumbing that stages share: take nested columns apart, and put messages and views together.

Nothing here knows a sentence or a rule. Rows are numbered from 0 within the table at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.schema import SAMPLE

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ROLES = ("system", "user", "assistant")
SYSTEM, USER, ASSISTANT = range(3)

_VIEW = SAMPLE.field("views").type.value_type
_MESSAGE = SAMPLE.field("messages").type.value_type


def alternating(place: Ints) -> Ints:
    """The role that is due at each place of a conversation: user and assistant alternate from 0, before it is system.

    >>> alternating(np.arange(-1, 3)).tolist()
    [0, 1, 2, 1]
    """
    return np.where(place < 0, SYSTEM, np.where(place % 2 == 0, USER, ASSISTANT))


class Lists(NamedTuple):
    """A list column taken apart: row i holds `values[starts[i] : starts[i] + lengths[i]]`, null nothing."""

    starts: Ints
    lengths: Ints
    values: pa.Array

    @property
    def rows(self) -> Ints:
        """The row each value belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


class Messages(NamedTuple):
    """One message for each of some rows: rows [M] ascending, role as index into ROLES, text [M]."""

    rows: Ints
    role: int | Ints
    text: pa.Array


class Views(NamedTuple):
    """One view for each of some rows: rows [V] ascending, turn and image [V], box and cells int32 [V, 4]."""

    rows: Ints
    turn: Ints
    image: Ints
    encoder: str
    box: npt.NDArray[np.int32] | None = None
    cells: npt.NDArray[np.int32] | None = None


def column(table: pa.Table, name: str) -> pa.Array:
    """A column as one array, whatever its chunks; copied only where there are several."""
    chunks = table.column(name)
    return chunks.chunk(0) if chunks.num_chunks == 1 else pa.concat_arrays(chunks.chunks or [pa.array([], chunks.type)])


def unlist(lists: pa.Array) -> Lists:
    """Take a list array apart; slices and null lists (of any hidden length) are safe.

    >>> unlist(pa.array([["a"], None, ["b", "c"]])).starts
    array([0, 1, 1])
    """
    lengths = numbers(pc.list_value_length(lists), 0)
    return Lists(np.cumsum(lengths) - lengths, lengths, lists.flatten())


def numbers(array: pa.Array, null: int) -> Ints:
    """An integer array as int64, with `null` in place of nulls."""
    values: Ints = pc.fill_null(array, null).to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def flags(array: pa.Array) -> Bools:
    """A boolean array as numpy, nulls as False."""
    values: Bools = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return values


def first(lists: Lists) -> pa.Array:
    """The first value of each list, null where it is empty."""
    return lists.values.take(pa.array(lists.starts, mask=lists.lengths == 0))


def quads(structs: pa.Array, name: str, null: float) -> tuple[npt.NDArray[Any], Bools]:
    """Four numbers of each struct, a box or cells: [M, 4], and which structs have them.

    null   what stands in place of nulls; a float gives float64 (boxes in px of an annotation), an int gives int64

    >>> quads(pa.array([{"box": [1, 2, 3, 4]}, {"box": None}], pa.struct({"box": pa.list_(pa.int64(), 4)})), "box", -1)
    (array([[ 1,  2,  3,  4],
           [-1, -1, -1, -1]]), array([ True, False]))
    """
    values = pc.struct_field(structs, name)
    given = flags(values.is_valid())
    found = np.full((len(given), 4), null)
    found[given] = pc.fill_null(values.flatten(), null).to_numpy(zero_copy_only=False).reshape(-1, 4)
    return found, given


def of_images(about: Lists, images: Lists) -> tuple[Ints, Bools]:
    """The image that each region or view is about: int64 [M] into `images.values`, and whether there is such an image.

    about   regions or views, whose field `image` counts the images of their row; where there is none the index is 0
    """
    rows, image = about.rows, numbers(pc.struct_field(about.values, "image"), 0)
    there = (image >= 0) & (image < images.lengths[rows])
    return np.where(there, images.starts[rows] + image, 0), there


def sizes(images: Lists) -> Ints:
    """Width and height of all images [I, 2] in pixels, 0 where unknown."""
    return np.stack([numbers(pc.struct_field(images.values, name), 0) for name in ("width", "height")], axis=1)


def sizes_of_images(about: Lists, images: Lists) -> Ints:
    """Width and height [M, 2] of the image that each region or view is about, 0 where unknown or without an image."""
    at, there = of_images(about, images)
    found = np.zeros((len(at), 2), np.int64)
    found[there] = sizes(images)[at[there]]
    return found


def relist(lengths: Ints, values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The list array of type `kind` that has these lengths; the inverse of `unlist`."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def structs(kind: pa.StructType, fields: Sequence[pa.Array]) -> pa.Array:
    """A struct array of type `kind` from its fields in order."""
    return pa.StructArray.from_arrays(list(fields), fields=list(kind))


def replaced(table: pa.Table, name: str, lists: Lists, fields: Sequence[pa.Array]) -> pa.Table:
    """The table with the structs in a list column of SAMPLE replaced; `lists` is that column taken apart."""
    kind, at = SAMPLE.field(name).type, table.schema.get_field_index(name)
    values = relist(lists.lengths, structs(kind.value_type, fields), kind)
    return table.set_column(at, table.schema.field(at), values)


def repeated(text: str, times: Ints) -> pa.Array:
    """`text` as many times as each row says, `""` for 0."""
    words = pa.array([text * n for n in range(int(times.max(initial=0)) + 1)])
    return words.take(pa.array(times))


def _by_row(parts: Sequence[Messages] | Sequence[Views], count: int) -> tuple[Ints, Ints]:
    """How to order the values of all parts by row (in a row, by part), and how many each row has."""
    rows = np.concatenate([part.rows for part in parts])
    return np.argsort(rows, kind="stable"), np.bincount(rows, minlength=count)


def messages(parts: Sequence[Messages], count: int) -> pa.Array:
    """The `messages` column of `count` rows: in each row the parts follow in the order given.

    >>> hello, bye = (Messages(np.arange(1), USER, pa.array([word])) for word in ("hello", "bye"))
    >>> [turn["content"] for turn in messages([hello, bye], 1)[0].as_py()]
    ['hello', 'bye']
    """
    order, lengths = _by_row(parts, count)
    roles = np.concatenate([np.broadcast_to(np.asarray(part.role), part.rows.shape) for part in parts])
    texts = pa.concat_arrays([part.text for part in parts]).take(pa.array(order))
    spoken = structs(_MESSAGE, [pa.array(ROLES).take(pa.array(roles[order])), texts])
    return relist(lengths, spoken, SAMPLE.field("messages").type)


def views(parts: Sequence[Views], count: int) -> pa.Array:
    """The `views` column of `count` rows: in each row the parts follow in the order given."""
    order, lengths = _by_row(parts, count)
    encoders = pa.array([part.encoder for part in parts])
    which = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])[order]
    fields = [
        pa.array(np.concatenate([part.turn for part in parts])[order].astype(np.int32)),
        pa.array(np.concatenate([part.image for part in parts])[order].astype(np.int32)),
        encoders.take(pa.array(which)),
        _quads([(part.box, len(part.rows)) for part in parts], order),
        _quads([(part.cells, len(part.rows)) for part in parts], order),
    ]
    return relist(lengths, structs(_VIEW, fields), SAMPLE.field("views").type)


def _quads(parts: Sequence[tuple[npt.NDArray[np.int32] | None, int]], order: Ints) -> pa.Array:
    """A column of four numbers a value, null for parts that have none."""
    empty = np.concatenate([np.full(size, values is None) for values, size in parts])
    filled = [np.zeros((size, 4), np.int32) if values is None else values for values, size in parts]
    flat = np.concatenate(filled)[order].astype(np.int32, copy=False).ravel()
    kind = _VIEW.field("box").type
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind, mask=pa.array(empty[order]))
