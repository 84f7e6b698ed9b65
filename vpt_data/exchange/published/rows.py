"""Rows of a published file -> rows of a corpus.

A row is turned into a sample whatever is wrong with it, and the rules of `check` say whether a corpus can hold it: so
what is imported passes `check`, and every other row is refused under the name of the rule that it breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from vpt_data import store
from vpt_data.columns import column, quads, unlist
from vpt_data.corpus.manifest import IMPORTED
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.dialogue.tokens import grid, placeholders
from vpt_data.dialogue.tokens.grid import decode
from vpt_data.dialogue.tokens.reencode import ENCODERS, decode_action
from vpt_data.errors import RawError
from vpt_data.exchange.published.crops import contradictions
from vpt_data.exchange.published.grid_repair import Look, beyond, on_grid, repaired
from vpt_data.exchange.published.lint import K, image_lists, row_keys, row_type, rules
from vpt_data.exchange.published.paths import canonical
from vpt_data.exchange.published.shown import Quad, Shown, shown
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import row_rules
from vpt_data.schema import SAMPLE, Reason, RegionStatus, Repair
from vpt_data.sources.reading.json_records import Records, read_records
from vpt_data.take import Task
from vpt_data.upstream.rawfile import RawFile

#: What the rows of a take are: its template, its encoder, its task.
TAKES: Final[dict[str, tuple[str, str | None, Task]]] = {
    "region": ("region", None, "spatial"),
    **{name: ("reencode", name, "general") for name in ENCODERS},
    **{f"alignment_{name}": ("alignment", name, "alignment") for name in ENCODERS},
    "plain": ("plain", None, "instruction"),
}
#: The task of rows that look at images of these folders, where it is another than that of their take.
_TASKS: Final[dict[str, Task]] = {"docvqa": "text_ocr", "textvqa": "text_ocr", "cub": "fine_grained"}
#: No index of a region token is as large.
_NO_LIMIT: Final = 10**9
_Fault = tuple[Reason, str]


def records_of(raw: RawFile) -> Iterator[Records]:
    """The records of a published file; RawError for one that ends inside a record, since nobody knows what it lacks."""
    for part in read_records(raw, dict[str, Any]):
        for drop in part.bad:
            if drop.detail.startswith("truncated"):
                raise RawError(f"{raw.name}, record {drop.row + 1}: {drop.detail}; fetch the file again.")
        yield part


class Refused(NamedTuple):
    """A record that is not imported: its number in the file, its line, the take it would have been in (if any), why."""

    row: int
    line: int | None
    take: str | None
    key: str | None
    reason: Reason
    detail: str


@dataclass(slots=True)
class Converted:
    """What became of the records of one stretch of a file.

    samples   SAMPLE, in the order of the file
    rows      int64[N], the number of each in the file
    repairs   uint16[N], Repair bits
    """

    samples: pa.Table
    rows: np.ndarray
    repairs: np.ndarray
    refused: list[Refused] = field(default_factory=list)


class _Row(NamedTuple):
    """A row as a sample, before anybody looked whether a corpus may hold it."""

    number: int
    line: int
    sample: dict[str, Any]
    repairs: Repair

    def refused(self, reason: Reason, detail: str) -> Refused:
        """The row as one that is not imported."""
        take, _, key = self.sample["id"].partition("/")
        return Refused(self.number, self.line, take, key, reason, detail)


class Converter:
    """Converts the records of one file; `seen` are the keys of the rows that were met.

    repair   put indices beyond the grid, and the crops that were cut by them, right
    root     where the images are, for the sizes of those that are cropped; None: no size is looked for

    `off_grid` counts the converted rows that name cells beyond the grid: none where they are repaired.
    """

    def __init__(self, repair: bool, root: ImageRoot | None) -> None:
        self._repair, self._root = repair, root
        self._type, self._keys, self._lists = row_type(), row_keys(), image_lists()
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._seen: set[int] = set()
        self.off_grid = 0

    def convert(self, part: Records) -> Converted:
        """Convert one stretch; raises nothing for what a record holds."""
        refused = [Refused(drop.row, drop.line, None, None, drop.reason, drop.detail) for drop in part.bad]
        rows: list[_Row] = []
        for value, number, line in zip(part.values, part.row.tolist(), part.line.tolist(), strict=True):
            made = self._row(value, number, line)
            if isinstance(made, Refused):
                refused.append(made)
            else:
                rows.append(made)
        samples = pa.Table.from_pylist([row.sample for row in rows], schema=SAMPLE)
        why = _broken(samples, frozenset() if self._repair else frozenset({"region"}))
        refused += [rows[place].refused(*reason) for place, reason in why.items()]
        keep = np.array([place for place in range(len(rows)) if place not in why], np.int64)
        kept = [rows[place] for place in keep.tolist()]
        self.off_grid += sum(_off_grid(row.sample) for row in kept)
        return Converted(
            samples.take(pa.array(keep)),
            np.array([row.number for row in kept], np.int64),
            np.array([int(row.repairs) for row in kept], np.uint16),
            sorted(refused),
        )

    def _row(self, value: Any, number: int, line: int) -> _Row | Refused:
        try:
            record: Any = msgspec.convert(value, self._type)
        except msgspec.ValidationError as error:
            return Refused(number, line, None, None, Reason.MALFORMED, str(error))
        lists = {encoder: getattr(record, name) for encoder, name in self._lists.items()}
        views = list(shown([message.content for message in record.messages], lists))
        key = xxhash.xxh3_128_hexdigest(msgspec.json.encode([record.messages, *lists.values()]))[:16]
        sample = self._sample(record, views, _take(record, lists), key)
        sample["meta"] = _meta(views, value.keys() - self._keys, value)
        row = _Row(number, line, sample, Repair(0))
        fault = self._fault(record, lists, views, int(key, 16))
        if fault is not None or not (self._repair and _off_grid(sample)):
            return row.refused(*fault) if fault else row
        if not _put_on_grid(sample):
            return row.refused(Reason.MALFORMED, "a token beyond the grid, and a crop that no image explains")
        return row._replace(repairs=Repair.OFF_GRID)

    def _fault(self, record: Any, lists: dict[str, list[str]], views: list[Shown], key: int) -> _Fault | None:
        """What keeps a record out that its sample would not show."""
        if key in self._seen:
            return Reason.DUPLICATE, "an equal row comes before it"
        self._seen.add(key)
        for encoder, word in placeholders().items():
            there, paths = sum(message.content.count(word) for message in record.messages), len(lists[encoder])
            if there != paths:
                return (
                    Reason.MALFORMED,
                    f"{self._lists[encoder]} has {paths} paths, the messages have {there} {word}",
                )
        for view in views:
            if store.is_unsafe(canonical(view.path)):
                return Reason.UNSAFE_PATH, f"{view.path}: the image path leads out of a raw root"
        return None

    def _sample(self, record: Any, views: list[Shown], take: str, key: str) -> dict[str, Any]:
        template, _, task = TAKES[take]
        contents = [message.content for message in record.messages]
        roles = [message.role for message in record.messages]
        images = {path: number for number, path in enumerate(dict.fromkeys(canonical(view.path) for view in views))}
        cropped = {canonical(view.path) for view in views if view.box}
        sizes = [self._size(path) if path in cropped else None for path in images]
        prompt, dataset = TEMPLATES[template].prompt, _dataset(next(iter(images), ""))
        asked = next((text for role, text in zip(roles, contents, strict=True) if role == "user"), "")
        said = [text for role, text in zip(roles, contents, strict=True) if role == "assistant" and not _calls(text)]
        first = next((turn for turn, role in enumerate(roles) if role == "user"), 0)
        return dict.fromkeys(SAMPLE.names) | {
            "id": f"{take}/{key}",
            "take": take,
            "source": IMPORTED,
            "dataset": dataset,
            "split": "train",
            "task": _TASKS.get(dataset or "", task) if prompt else task,
            "template": template,
            "looks": ["region" if view.encoder == "vlm" else view.encoder for view in views if view.turn > first],
            "messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)],
            "views": list(_views(contents, roles, views, images)),
            "images": [{"bytes": None, "path": path} for path in images],
            "image_info": [_info(size) for size in sizes],
            "question": _question(asked, prompt),
            "answers": said[:1],
            "regions": [],
            "region_status": RegionStatus.UNKNOWN,
            "prompted": bool(prompt) and len(roles) > 2 and asked.endswith(prompt),
            "k": K,
            "crop_margin_cells": 0,
            "weight": 1.0,
        }

    def _size(self, path: str) -> tuple[int, int] | None:
        if self._root is None:
            return None
        if path not in self._sizes:
            found = self._root.size(path)
            self._sizes[path] = None if isinstance(found, Failure) else found
        return self._sizes[path]


def _take(record: Any, lists: dict[str, list[str]]) -> str:
    """The take of a row: by its first look, else by the encoder of its pictures."""
    for message in record.messages:
        if message.role == "assistant" and "<|" in message.content:
            if re.search(grid.TOKEN, message.content):
                return "region"
            if found := decode_action(message.content):
                return found[0].encoder
    through = [encoder for encoder in ENCODERS if lists[encoder]]
    return f"alignment_{through[0]}" if through and not lists["vlm"] else "plain"


def _calls(text: str) -> bool:
    return "<|" in text and bool(re.search(grid.TOKEN, text) or decode_action(text))


def _question(asked: str, prompt: str) -> str:
    text = asked.removesuffix(prompt) if prompt else asked
    for word in placeholders().values():
        text = text.replace(word, "")
    return text.strip()


def _views(
    contents: list[str], roles: list[str], views: list[Shown], images: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """The views of a row; the cells of crops are those that the turn before names, in order."""
    named: dict[int, Iterator[Quad]] = {}
    for turn, encoder, path, box in views:
        before = contents[turn - 1] if turn and roles[turn - 1] == "assistant" else ""
        cells = named.setdefault(turn, iter(decode(before, _NO_LIMIT).cells))
        yield {
            "turn": turn,
            "image": images[canonical(path)],
            "encoder": encoder,
            "box": box,
            "cells": None if box is None else next(cells, None),
        }


def _info(size: tuple[int, int] | None) -> dict[str, Any]:
    width, height = size or (None, None)
    return {"width": width, "height": height, "sha256": None, "license": None, "attribution": None}


def _meta(views: list[Shown], others: set[str], value: dict[str, Any]) -> str | None:
    """What the columns of a sample cannot say: paths as they were, and keys that no published row has."""
    paths = {canonical(view.path): view.path for view in views}
    meta: dict[str, Any] = {}
    if any(path != given for path, given in paths.items()):
        meta["paths"] = list(paths.values())
    if others:
        meta["other_keys"] = {name: value[name] for name in sorted(others)}
    return json.dumps(meta, ensure_ascii=False) if meta else None


def _dataset(path: str) -> str | None:
    """What a path says of whose image it is: its first folder."""
    return path.partition("/")[0] if "/" in path else None


def _off_grid(sample: dict[str, Any]) -> bool:
    return any(view["cells"] and beyond(view["cells"], K) for view in sample["views"])


def _put_on_grid(sample: dict[str, Any]) -> bool:
    """Repair the views and tokens of a sample in place; False where the size of an image cannot be known."""
    info = sample["image_info"]
    for view in sample["views"]:
        if view["cells"] is None or not beyond(view["cells"], K):
            continue
        known = info[view["image"]]
        size = (known["width"], known["height"]) if known["width"] else None
        look = repaired(Look(view["cells"], view["box"]), K, size)
        if look is None:
            return False
        view["cells"], view["box"] = look
    for message in sample["messages"]:
        if message["role"] == "assistant" and _calls(message["content"]):
            message["content"] = on_grid(message["content"], K)
    return True


def _broken(samples: pa.Table, legacy: frozenset[str]) -> dict[int, _Fault]:
    """Which samples a corpus may not hold, with the reason and the first rule that each breaks."""
    found: dict[int, _Fault] = {}
    for rule, bad in row_rules.breaking(samples, legacy, embed=False):
        reason = Reason.SIZE_MISMATCH if rule == "crop" else Reason.MALFORMED
        for place in bad.tolist():
            found.setdefault(place, (reason, f"{rule}: {row_rules.RULES[rule]}"))
    views = unlist(column(samples, "views"))
    cells, given = quads(views.values, "cells", 0)
    box, boxed = quads(views.values, "box", 0)
    for place in np.unique(views.rows[boxed & ~given]).tolist():
        found.setdefault(place, (Reason.MALFORMED, f"region_crops: {rules()['region_crops']}"))
    some = np.flatnonzero(given & boxed & ~np.isin(views.rows, list(found)))
    image = pc.struct_field(views.values, "image").take(pa.array(some)).cast(pa.string())
    differ = contradictions(views.rows[some], image, cells[some].astype(np.int64), box[some].astype(np.int64), K)
    for place in np.unique(views.rows[some][differ]).tolist():
        found[place] = (Reason.MALFORMED, f"crop_cells: {rules()['crop_cells']}")
    return found
