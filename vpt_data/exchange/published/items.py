"""The rows of a published file as a page shows them: crops out of file names, views out of placeholders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from vpt_data.dialogue.tokens.grid import decode
from vpt_data.exchange.published.lint import K, image_lists, linted, rules
from vpt_data.exchange.published.shown import shown
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.view.choose import Choice, choose
from vpt_data.inspect.view.item import CorpusEntry, Document, Item, Numbers, Problem, item
from vpt_data.inspect.view.pictures import Embedded
from vpt_data.inspect.view.signals import RULE_WEIGHT
from vpt_data.schema import SAMPLE
from vpt_data.sources.reading.json_records import read_records
from vpt_data.store import AnyPath
from vpt_data.upstream.rawfile import RawFile


def document(
    path: AnyPath, choice: Choice, root: AnyPath | None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Document:
    """The document of a published file; rows are called `row 0`, `row 1` and so on, as `check` calls them.

    root       the folder that its paths are relative to, for pictures
    progress   is called with the rows that were drawn, and how many there are

    Raises what `lint` raises, and UsageError for an id that is not there.
    """
    linter = linted(path)
    broken = {rule: np.concatenate(parts) for rule, parts in linter.broken.items()}
    chosen = choose(_index(linter.rows, broken), choice, f"rows of {path.name}")
    wanted = set(chosen.lines.tolist())
    problems = {row: [rule for rule, bad in broken.items() if row in bad] for row in wanted}
    pictures = Embedded(None if root is None else ImageRoot(root))
    items = []
    for number, row in _rows(path, wanted):
        items.append(_item(number, row, problems[number], pictures))
        progress(len(items), len(wanted))
    return Document(
        title=path.name,
        corpora=[CorpusEntry(name=path.name, place=str(path), rows=linter.rows, kind="published")],
        chosen=chosen.sentence,
        items=items,
        pictures=pictures.found,
    )


def _index(count: int, broken: Mapping[str, np.ndarray]) -> pa.Table:
    """What rows are chosen by."""
    problems, severity = np.zeros(count, np.uint64), np.zeros(count, np.int64)
    for place, rows in enumerate(broken.values()):
        problems[rows] |= np.uint64(1 << place)
        severity[rows] += RULE_WEIGHT
    columns = {
        "id": pa.array([f"row {number}" for number in range(count)], pa.string()),
        "severity": severity,
        "problems": problems,
        "repaired": np.zeros(count, np.uint16),
        "iou": pa.nulls(count, pa.float32()),
        "pictured": pa.nulls(count, pa.bool_()),
    }
    return pa.table(columns)


def _rows(path: AnyPath, wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records with these numbers; one that cannot be read has nothing in it."""
    for part in read_records(RawFile(path, path.name), dict[str, Any]):
        numbered = zip(part.row.tolist(), part.values, strict=True)
        here = {number: value for number, value in numbered if number in wanted}
        here |= {drop.row: {} for drop in part.bad if drop.row in wanted}
        yield from sorted(here.items())


def _item(number: int, record: dict[str, Any], broken: list[str], pictures: Embedded) -> Item:
    row = _sample(record) | {"id": f"row {number}"}
    demands = rules()
    return item(
        row, pictures,
        problems=[Problem(rule, demands[rule]) for rule in broken],
        numbers=Numbers(text=sum(len(turn["content"]) for turn in row["messages"]), severity=RULE_WEIGHT * len(broken)),
    )  # fmt: skip


def _sample(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row of a corpus: only what the page shows, and only values of the right types."""
    messages = [
        {"role": str(turn.get("role")), "content": str(turn.get("content"))}
        for turn in _list(record.get("messages"))
        if isinstance(turn, dict)
    ]
    paths: dict[str, int] = {}
    views = list(_views(record, messages, paths))
    empty = {"width": None, "height": None, "sha256": None, "license": None, "attribution": None}
    return dict.fromkeys(SAMPLE.names) | {
        "messages": messages,
        "views": views,
        "images": [{"bytes": None, "path": path} for path in paths],
        "image_info": [empty for _ in paths],
        "looks": [view["encoder"].replace("vlm", "region") for view in views if view["turn"] > 0],
        "k": K,
    }


def _views(record: dict[str, Any], messages: list[dict[str, str]], paths: dict[str, int]) -> Iterator[dict[str, Any]]:
    """What each placeholder shows; the paths of images are numbered on the way.

    The cells of a crop are those of the turn before, in order.
    """
    lists = {encoder: _list(record.get(name)) for encoder, name in image_lists().items()}
    cells: dict[int, Iterator[tuple[int, int, int, int]]] = {}
    for turn, encoder, path, box in shown([message["content"] for message in messages], lists):
        before = messages[turn - 1]["content"] if turn and messages[turn - 1]["role"] == "assistant" else ""
        named = cells.setdefault(turn, iter(decode(before, K).cells))
        yield {
            "turn": turn,
            "image": paths.setdefault(path, len(paths)),
            "encoder": encoder,
            "box": None if box is None else list(box),
            "cells": None if box is None else next(named, None),
        }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
