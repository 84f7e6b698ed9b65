"""What the page shows: one document of items and drops, as structs that become JSON.

`item` makes an item of one row of a corpus. All text is data; the page sets it as text and never as HTML. Boxes are
`x0, y0, x1, y1` in pixels of the stored image, half open; cells are `col0, row0, col1, row1`, both ends included.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import PIL.Image

from vpt_data.depth.tokenizer import Pool
from vpt_data.dialogue.tokens import depth
from vpt_data.inspect.drops import Drop
from vpt_data.inspect.row_rules import tokenizer_of
from vpt_data.inspect.view import turns
from vpt_data.inspect.view.turns import Turn

#: Width and height of a depth map that tokens say, in pixels.
_MAP_SIDE: Final = 160


class Picture(msgspec.Struct, frozen=True):
    """An image or a crop as the page can show it.

    src      a key of `Document.pictures`, or a URL; None where there is no picture
    missing  why there is none, one sentence
    size     width and height of the stored pixels that it shows; None where nobody knows
    """

    src: str | None = None
    missing: str | None = None
    size: tuple[int, int] | None = None


class Pictures(Protocol):
    """Where an item gets its pictures from; a picture that is missing is an entry with its reason, never an error."""

    def image(self, row: Mapping[str, Any], which: int) -> Picture:
        """The whole image of a row."""
        ...

    def crop(self, row: Mapping[str, Any], number: int) -> Picture:
        """What `views[number]` of a row cuts out of its image."""
        ...


class Problem(msgspec.Struct, frozen=True):
    """Something to look at: a rule of `check` that the row breaks, a repair, or a name of `problems.SIGNALS`."""

    kind: str
    text: str


class Numbers(msgspec.Struct, frozen=True):
    """What the page sorts by; numbers of boxes are those of the row's worst box, None where there is no box.

    box_area  share of the image
    cells     area of the box in cells of the grid
    iou       of the pixels that the cells show with the box
    text      characters of question and answers
    severity  how much is wrong: 0 nothing; `problems first` sorts by it, the largest first
    """

    box_area: float | None = None
    cells: float | None = None
    iou: float | None = None
    text: int = 0
    severity: int = 0


class Box(msgspec.Struct, frozen=True):
    """A box that the source gave, in pixels of the stored image, as it is in the row (neither sorted nor clipped)."""

    box: tuple[float, float, float, float]
    label: str | None = None


class Image(msgspec.Struct, frozen=True):
    """An image of a row; its size is that of the row, else that of the file, and None where nobody knows it."""

    path: str | None
    width: int | None
    height: int | None
    src: str | None
    missing: str | None
    license: str | None
    attribution: str | None
    boxes: list[Box]


class View(msgspec.Struct, frozen=True):
    """What a placeholder shows. `src` is the crop as the model gets it; without a box it is None: the whole image."""

    turn: int
    image: int
    encoder: str | None
    box: tuple[int, int, int, int] | None
    cells: tuple[int, int, int, int] | None
    src: str | None
    missing: str | None


class Origin(msgspec.Struct, frozen=True):
    """The raw record: its file, and its number in it, from 0."""

    file: str
    row: int


class Place(msgspec.Struct, frozen=True):
    """Where a row is stored: the file, and its number in it, from 0."""

    file: str
    row: int


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    repaired  kinds of repair, see docs/format.md
    raw       the row as it is stored, without the bytes of images
    other     the same id in the second corpus
    only_in   number of the corpus that has the row, where the other one lacks it
    """

    id: str
    place: Place | None = None
    split: str | None = None
    take: str | None = None
    source: str | None = None
    dataset: str | None = None
    template: str | None = None
    task: str | None = None
    looks: list[str] = []
    expected: str | None = None
    prompted: bool | None = None
    k: int | None = None
    license: str | None = None
    question: str | None = None
    answers: list[str] = []
    region_status: str | None = None
    repaired: list[str] = []
    problems: list[Problem] = []
    numbers: Numbers = Numbers()
    images: list[Image] = []
    turns: list[Turn] = []
    views: list[View] = []
    origin: Origin | None = None
    raw: dict[str, Any] = {}
    other: Item | None = None
    only_in: int | None = None


class DropItem(Drop, frozen=True, kw_only=True):
    """A record that is in no shard, as the drop table has it; `item` where the raw record can be read again."""

    item: Item | None = None


class CorpusEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A corpus that the page shows; `kind` is "corpus" or "published" (a JSON file of the authors of VPT)."""

    name: str
    place: str
    rows: int
    kind: str
    fingerprint: str | None = None
    mode: str | None = None
    limited: bool = False


class Table(msgspec.Struct, frozen=True):
    """The numbers of a plot."""

    header: list[str]
    rows: list[list[str]]


class PlotEntry(msgspec.Struct, frozen=True):
    """A plot as SVG text that is safe to inline, its numbers, and a sentence that says how to read it."""

    title: str
    svg: str
    table: Table
    note: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The whole page.

    chosen    one sentence: which rows, of how many, by which rule
    pictures  data URIs by key; rows of one image share one
    dropped_counts  of the whole corpus: take -> reason -> records
    api       where more rows can be fetched (`vpt-data view --serve`); None: everything is in the document
    """

    title: str
    corpora: list[CorpusEntry]
    chosen: str
    items: list[Item] = []
    dropped: list[DropItem] = []
    dropped_counts: dict[str, dict[str, int]] = {}
    plots: list[PlotEntry] = []
    pictures: dict[str, str] = {}
    api: str | None = None


def item(
    row: Mapping[str, Any],
    pictures: Pictures,
    *,
    place: Place | None = None,
    origin: Origin | None = None,
    numbers: Numbers | None = None,
    problems: Sequence[Problem] = (),
    repaired: Sequence[str] = (),
) -> Item:
    """The item of a row of a corpus, which has every column of SAMPLE as Python values."""
    same = ("id", "split", "take", "source", "dataset", "template", "task", "expected", "prompted", "k", "license")
    return Item(
        **{name: row[name] for name in (*same, "question", "region_status")},
        place=place,
        looks=row["looks"] or [],
        answers=row["answers"] or [],
        repaired=list(repaired),
        problems=list(problems),
        numbers=numbers or Numbers(),
        images=images(row, pictures),
        turns=turns.turns(row["messages"] or [], row["views"] or [], functools.partial(_map, row["meta"])),
        views=[_view(row, number, pictures) for number in range(len(row["views"] or []))],
        origin=origin,
        raw=_raw(row),
    )


def _map(meta: str | None, text: str) -> str | None:
    """The depth map that tokens say, as a data URI; only codes of a tokenizer without weights can be drawn here."""
    span = depth.decode(text)[0]
    if not span.usable or tokenizer_of(meta).split(" ")[0] != Pool.NAME:
        return None
    [map_] = Pool().decode(np.array([span.codes], np.uint8))
    out = io.BytesIO()
    PIL.Image.fromarray(map_).resize((_MAP_SIDE, _MAP_SIDE)).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def images(row: Mapping[str, Any], pictures: Pictures) -> list[Image]:
    """The images of a row with the boxes that are on them; a row of the raw root has no `image_info`."""
    found = []
    for which, entry in enumerate(row["images"] or []):
        listed = row["image_info"] or []
        info = listed[which] if which < len(listed) else {}
        picture = pictures.image(row, which)
        width, height = info.get("width"), info.get("height")
        if not (width and height):
            width, height = picture.size or (None, None)
        boxes = [
            Box(tuple(region["box"]), region["label"])
            for region in row["regions"] or []
            if region["image"] == which and region["box"]
        ]
        terms = (info.get("license"), info.get("attribution"))
        found.append(Image(entry["path"], width, height, picture.src, picture.missing, *terms, boxes))
    return found


def _view(row: Mapping[str, Any], number: int, pictures: Pictures) -> View:
    view = row["views"][number]
    cut = pictures.crop(row, number) if view["box"] else Picture()
    box, cells = (tuple(view[name]) if view[name] else None for name in ("box", "cells"))
    return View(view["turn"], view["image"], view["encoder"], box, cells, cut.src, cut.missing)


def _raw(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as it is stored; of embedded images only how many bytes they have."""
    shown = []
    for entry in row["images"] or []:
        data = entry.get("bytes")
        shown.append({"bytes": None if data is None else f"{len(data):,} bytes", "path": entry["path"]})
    return {**row, "images": shown}
