"""The four tables of the project, and the names of the reasons and repairs they are counted by.

Arrow tables with these schemas are all that flows between stages. ANNOTATION is what a source says, without any
prompt; SAMPLE is one row of a shard; DROP says why a record is in no shard; ORIGIN traces a sample to a raw record and
says what was repaired in it.
Boxes are x0, y0, x1, y1 in pixels of the stored image, half open, origin top left.
"""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA_VERSION = 1

_text = pa.string()
_turns = pa.list_(pa.struct([pa.field("role", _text), pa.field("content", _text)]))
_regions = pa.list_(
    pa.struct(
        [
            pa.field("image", pa.int32()),
            pa.field("box", pa.list_(pa.float64(), 4)),
            pa.field("label", _text),
        ]
    )
)
_views = pa.list_(
    pa.struct(
        [
            pa.field("turn", pa.int32()),
            pa.field("image", pa.int32()),
            pa.field("encoder", _text),
            pa.field("box", pa.list_(pa.int32(), 4)),
            pa.field("cells", pa.list_(pa.int32(), 4)),
        ]
    )
)

ANNOTATION = pa.schema(
    [
        ("source", _text),
        ("dataset", _text),
        ("split", _text),
        ("key", _text),
        ("source_id", _text),
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        pa.field("path", _text),
                        pa.field("width", pa.int32()),
                        pa.field("height", pa.int32()),
                    ]
                )
            ),
        ),
        ("question", _text),
        ("answers", pa.list_(_text)),
        ("regions", _regions),
        ("region_status", _text),
        ("turns", _turns),
        ("meta", _text),
    ]
)

_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", _text)])
_SAMPLE = pa.schema(
    [
        ("id", _text),
        ("take", _text),
        ("source", _text),
        ("dataset", _text),
        ("source_id", _text),
        ("split", _text),
        ("task", _text),
        ("template", _text),
        ("looks", pa.list_(_text)),
        ("expected", _text),
        ("messages", _turns),
        ("views", _views),
        ("images", pa.list_(_IMAGE)),
        (
            "image_info",
            pa.list_(
                pa.struct(
                    [
                        pa.field("width", pa.int32()),
                        pa.field("height", pa.int32()),
                        pa.field("sha256", _text),
                        pa.field("license", _text),
                        pa.field("attribution", _text),
                    ]
                )
            ),
        ),
        ("question", _text),
        ("answers", pa.list_(_text)),
        ("regions", _regions),
        ("region_status", _text),
        ("meta", _text),
        ("prompted", pa.bool_()),
        ("k", pa.int32()),
        ("crop_margin_cells", pa.int32()),
        ("license", _text),
        ("language", _text),
        ("weight", pa.float32()),
    ]
)

DROP = pa.schema(
    [
        ("take", _text),
        ("source", _text),
        ("dataset", _text),
        ("key", _text),
        ("file", _text),
        ("line", pa.int64()),
        ("reason", _text),
        ("detail", _text),
    ]
)

ORIGIN = pa.schema([("id", _text), ("file", _text), ("row", pa.int64()), ("repaired", pa.list_(_text))])


class Reason(enum.StrEnum):
    """Why a record is not in a shard of a take."""

    MALFORMED = "malformed"
    EMPTY_QUESTION = "empty_question"
    EMPTY_ANSWER = "empty_answer"
    UNSAFE_PATH = "unsafe_path"
    DUPLICATE = "duplicate"
    NO_REGION_LEFT = "no_region_left"
    NO_SIZE = "no_size"
    MISSING_IMAGE = "missing_image"
    BAD_IMAGE = "bad_image"
    SIZE_MISMATCH = "size_mismatch"
    EVAL_IMAGE = "eval_image"
    NOT_SELECTED = "not_selected"
    CLAIMED = "claimed"
    LICENSE = "license"


class Repair(enum.IntFlag):
    """What was repaired in a kept record; one bit each, so that a record can carry several."""

    SWAPPED = 1
    CLIPPED = 2
    ZERO_AREA = 4
    NEUTRALISED = 8
    REENCODED = 16
    REWRITTEN = 32
    RESCALED = 64
    EMPTY_ANSWER = 128
    NO_REGION = 256
    OFF_GRID = 512


def repair_names(bits: npt.NDArray[np.uint16]) -> pa.Array:
    """The names of the repairs of each record: Repair bits uint16[N] -> list<string>[N].

    >>> repair_names(np.array([0, 6], np.uint16)).to_pylist()
    [[], ['clipped', 'zero_area']]
    """
    distinct, which = np.unique(bits, return_inverse=True)
    names = [[str(kind.name).lower() for kind in Repair if each & kind] for each in distinct.tolist()]
    return pa.array(names, ORIGIN.field("repaired").type).take(pa.array(which))


class RegionStatus(enum.StrEnum):
    """Whether an empty region list means `none needed` or `nobody knows`, and whether given regions can be used.

    UNUSABLE is for evaluation rows, which stay: nothing of the given boxes is inside the image, or its size is unknown.
    """

    GIVEN = "given"
    NONE_NEEDED = "none_needed"
    UNKNOWN = "unknown"
    UNUSABLE = "unusable"


TASKS = ("text_ocr", "spatial", "general", "fine_grained", "instruction", "alignment")


def sample_ids(take: str, keys: pa.Array, turn: npt.NDArray[np.int32] | None) -> pa.Array:
    """The ids of samples: `take/key`, or `take/key#turn` where `turn` (int32[N]) is not negative.

    >>> sample_ids("vsr", pa.array(["a", "b"]), np.array([-1, 2], np.int32)).to_pylist()
    ['vsr/a', 'vsr/b#2']
    """
    ids = pc.binary_join_element_wise(take, keys, "/")
    if turn is None or (turn < 0).all():
        return ids
    split = pc.binary_join_element_wise(ids, pa.array(turn).cast(pa.string()), "#")
    return pc.if_else(pa.array(turn >= 0), split, ids)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """The `datasets` feature that describes an Arrow type; image structs become `Image`."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float64(): "float64", pa.float32(): "float32", pa.bool_(): "bool"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _with_features(schema: pa.Schema) -> pa.Schema:
    """The schema with the `huggingface` key, which lets `datasets` and the Hub viewer decode images."""
    features = {field.name: _feature(field.type) for field in schema}
    info = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": info, "vpt_data_schema": str(SCHEMA_VERSION)})


SAMPLE = _with_features(_SAMPLE)
