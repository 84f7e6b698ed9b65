"""The picture of one row: images with annotated boxes, grid and chosen cells; beside them the dialogue with its views.

Red is what the source gave, blue what the model asks for at a region, violet what it asks for through another encoder;
every line is also explained in words below the image. Rows of every kind are drawn by the same few functions, each of
which makes one block of the picture. The same row gives the same bytes (with one version of Pillow).
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from vpt_data.errors import CorpusError
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.lettering import Run, font, pitch, text_block
from vpt_data.inspect.overlay import BOX, CELLS, ENCODER, SMALLEST, Frame, Row, frame_of, info_of, overlaid
from vpt_data.inspect.view.turns import Turn, turns

WIDTH = 1180
_MARGIN, _GAP = 24, 10
_LEFT = 520  # width of the column of images
_AXIS = 26  # room for the numbers of columns and rows
_TALLEST = 560  # of an image
_IMAGES, _TURNS, _LINES, _THUMBNAILS = 2, 10, 7, 6
_THUMBNAIL = (170, 128)

INK, FAINT = "#1f2328", "#57606a"
_LOSS, _NO_LOSS = "#dafbe1", "#eff1f4"


def draw(row: Row, raw: ImageRoot | None = None, hidden: str = "") -> Image.Image:
    """The picture of a row, RGB, 1180 pixels wide and as high as it needs.

    row     every column of a sample, as `pyarrow` or `datasets` give it
    raw     the raw root that images of a corpus in reference mode are read from
    hidden  why no pixels of the row may be shown: a sentence that stands in the pattern that is drawn for them

    An image that is missing or cannot be decoded is a pattern of its aspect ratio with a sentence, never an error.
    """
    frames = [frame_of(row, which, raw, hidden) for which in range(len(row["images"] or []))]
    right = WIDTH - 2 * _MARGIN - (_LEFT + _AXIS + 2 * _GAP if frames else 0)
    columns = [_stacked(_images(row, frames))] if frames else []
    columns.append(_stacked([_title(row, right), *_dialogue(row, frames, right)]))
    sheet = Image.new("RGB", (WIDTH, 2 * _MARGIN + max(column.height for column in columns)), "white")
    sheet.paste(columns[0], (_MARGIN, _MARGIN))
    sheet.paste(columns[-1], (WIDTH - _MARGIN - right, _MARGIN))
    return sheet


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


# Images -----------------------------------------------------------------------------------------------------


def _images(row: Row, frames: Sequence[Frame]) -> list[Image.Image]:
    blocks = []
    for which, frame in enumerate(frames[:_IMAGES]):
        panel = overlaid(row, which, frame, (_LEFT, _TALLEST // min(len(frames), _IMAGES)))
        if frame.why:
            _sentence(panel, frame.why)
        blocks += [_numbered(row, which, panel), _caption(row, which)]
    if len(frames) > _IMAGES:
        blocks.append(_indented([Run(f"and {len(frames) - _IMAGES} more images", FAINT)], 13))
    return [*blocks, *_legend(row)]


def _numbered(row: Row, which: int, panel: Image.Image) -> Image.Image:
    """The panel with the tokens of its columns above and those of its rows at the left."""
    block = Image.new("RGB", (_LEFT + _AXIS, panel.height + _AXIS), "white")
    block.paste(panel, (_AXIS, _AXIS))
    k = max(row["k"] or 0, 0)
    if not k or not any(view["cells"] for view in row["views"] or [] if view["image"] == which):
        return block.crop((0, _AXIS, *block.size))
    pen = ImageDraw.Draw(block)
    for axis, side in (("x", panel.width), ("y", panel.height)):
        step = math.ceil(28 * k / side) if axis == "x" else math.ceil(16 * k / side)
        for n in range(0, k, step):
            middle = _AXIS + (n + 0.5) * side / k
            at = (middle, _AXIS / 2) if axis == "x" else (_AXIS / 2, middle)
            pen.text(at, f"{axis}_{n}", FAINT, font(11), anchor="mm")
    return block


def _sentence(panel: Image.Image, why: str) -> None:
    """A sentence in the middle of the pattern that stands for an image; at its foot it hides fewest boxes."""
    if min(panel.size) < 60:
        return
    note = text_block([Run(why, INK)], min(panel.width - 16, 360), max(1, (panel.height - 20) // pitch(12)), 12)
    note = ImageOps.expand(note, 4, "white")
    panel.paste(note, ((panel.width - note.width) // 2, panel.height - note.height - 4))


def _caption(row: Row, which: int) -> Image.Image:
    """Whose image it is: licences ask that their owners are named beside it."""
    info = info_of(row, which)
    width, height = info.get("width"), info.get("height")
    size = f"{width} x {height} pixels" if width and height else "size not known"
    parts = [row["images"][which]["path"] or "own image", size, info.get("license") or "no licence given"]
    return _indented([Run(", ".join([*parts, *filter(None, [info.get("attribution")])]), FAINT)], 12)


def _legend(row: Row) -> list[Image.Image]:
    """What each kind of line means, for those that are there."""
    lines = []
    if any(region["box"] for region in row["regions"] or []):
        lines.append((BOX, "annotated box, as the source gave it"))
    elif row["region_status"] == "none_needed":
        lines.append((FAINT, "the source gave no box, and none is needed"))
    shown = [view for view in row["views"] or [] if view["box"]]
    if shown:
        lines.append((CELLS, _chosen(row, shown[0])))
    encoders = dict.fromkeys(view["encoder"] for view in row["views"] or [] if view["encoder"] != "vlm")
    lines += [(ENCODER, f"the whole image, shown once more through {name.upper()}") for name in encoders]
    blocks = []
    for color, words in lines:
        block = _indented([Run(words, color)], 13, 26)
        ImageDraw.Draw(block).rectangle((_AXIS, 3, _AXIS + 16, 14), None, color, 3)
        blocks.append(block)
    return blocks


def _chosen(row: Row, view: Mapping[str, Any]) -> str:
    if not view["cells"]:
        return "the box that the text names; the crop shows it"
    if row["crop_margin_cells"]:
        return "the cells that the tokens name; the crop shows them and what the thin line adds"
    return "the cells that the tokens name; the crop shows them"


# Dialogue ---------------------------------------------------------------------------------------------------


def _title(row: Row, width: int) -> Image.Image:
    looks = Counter(row["looks"] or [])
    named = [look if number == 1 else f"{number} x {look}" for look, number in looks.items()]
    shown = f"second look: {', '.join(named)}" if named else "no second look"
    if row["expected"]:
        shown = f"evaluation row, the look to play: {row['expected']}"
    words = f"take {row['take']}, template {row['template']}, {shown}"
    return _stacked(
        [text_block([Run(row["id"] or "", INK)], width, 2, 16), text_block([Run(words, FAINT)], width, 2, 13)], gap=2
    )


def _dialogue(row: Row, frames: Sequence[Frame], width: int) -> list[Image.Image]:
    messages = turns(row["messages"] or [], row["views"] or [])
    blocks = [_turn(row, turn, frames, width) for turn in messages[:_TURNS]]
    if len(messages) > _TURNS:
        blocks.append(text_block([Run(f"and {len(messages) - _TURNS} more messages", FAINT)], width, 1, 13))
    return blocks


def _turn(row: Row, turn: Turn, frames: Sequence[Frame], width: int) -> Image.Image:
    """A message: green where it carries loss, its tokens coloured, its views beside their placeholders."""
    trained = turn.loss and not row["expected"]
    paper = _LOSS if trained else _NO_LOSS
    label = "carries loss" if trained else "the expected answer, not trained" if turn.loss else "no loss"
    if trained and not all(part.loss for part in turn.parts):
        label = "carries loss, except the token in grey"
    runs = [Run(part.text, _color(part.kind, part.family, part.loss or not trained)) for part in turn.parts]
    asked = [part.view for part in turn.parts if part.kind == "view" and part.view is not None]
    looks = [number for number in asked if not _plainly(row, number)]
    shown = [
        _view(row, number, frames, paper, f"{place}: " if len(looks) > 1 else "")
        for place, number in enumerate(looks[:_THUMBNAILS])
    ]
    words = text_block(runs, width - 24, _LINES, 15, paper)
    inside = _stacked([text_block([Run(f"{turn.role}: {label}", FAINT)], width - 24, 1, 12, paper), words], paper, 2)
    if shown:
        # One view stands beside its placeholder, several stand below their text.
        inside = _side_by_side([inside, *shown], width - 24, paper)
    block = Image.new("RGB", (width, inside.height + 16), "white")
    ImageDraw.Draw(block).rounded_rectangle((0, 0, width - 1, block.height - 1), 8, paper)
    block.paste(inside, (12, 8))
    return block


def _plainly(row: Row, number: int) -> bool:
    """Whether a view shows the whole image as it is at the left."""
    view = row["views"][number]
    return view["encoder"] == "vlm" and view["box"] is None


def _color(kind: str, family: str | None, loss: bool) -> str:
    if kind == "view":
        return "#953800"
    if kind == "text":
        return INK
    return {"region": CELLS, "action": ENCODER}.get(family or "", INK) if loss else "#8c959f"


def _view(row: Row, number: int, frames: Sequence[Frame], paper: str, name: str) -> Image.Image:
    """What a placeholder shows, framed in the colour of its look, with a line of words that begins with `name`."""
    view = row["views"][number]
    color = CELLS if view["encoder"] == "vlm" else ENCODER
    if not 0 <= view["image"] < len(frames):
        return text_block([Run(f"image {view['image']} is not in the row", FAINT)], 200, 3, 12, paper)
    frame = frames[view["image"]]
    try:
        cut = frame.cut(view["box"])
    except CorpusError as error:
        return text_block([Run(str(error), FAINT)], 300, 5, 12, paper)
    size = (view["box"][2] - view["box"][0], view["box"][3] - view["box"][1]) if view["box"] else frame.size
    what = f"{size[0]} x {size[1]} pixels" if view["box"] else f"whole image through {view['encoder'].upper()}"
    cut = ImageOps.contain(cut, _THUMBNAIL, Image.Resampling.LANCZOS)
    cut = cut.resize((max(cut.width, SMALLEST), max(cut.height, SMALLEST)))
    words = text_block([Run(f"{name}{what}", FAINT)], 200, 1, 12, paper)
    return _stacked([ImageOps.expand(cut, 3, color), words], paper, 2)


# Blocks -----------------------------------------------------------------------------------------------------


def _indented(runs: Sequence[Run], size: int, more: int = 0) -> Image.Image:
    words = text_block(runs, _LEFT - more, 4, size)
    return ImageOps.expand(words, (_AXIS + more, 0, 0, 0), "white")


def _stacked(blocks: Sequence[Image.Image], paper: str = "white", gap: int = _GAP) -> Image.Image:
    """Blocks one below the other."""
    height = sum(block.height + gap for block in blocks) - gap
    whole = Image.new("RGB", (max(block.width for block in blocks), height), paper)
    y = 0
    for block in blocks:
        whole.paste(block, (0, y))
        y += block.height + gap
    return whole


def _side_by_side(blocks: Sequence[Image.Image], width: int, paper: str) -> Image.Image:
    """Blocks from left to right, in a new line where there is no more room."""
    lines: list[list[Image.Image]] = [[]]
    for block in blocks:
        if sum(each.width + 2 * _GAP for each in (*lines[-1], block)) - 2 * _GAP > width and lines[-1]:
            lines.append([])
        lines[-1].append(block)
    rows = []
    for line in lines:
        row = Image.new("RGB", (width, max(block.height for block in line)), paper)
        x = 0
        for block in line:
            row.paste(block, (x, 0))
            x += block.width + 2 * _GAP
        rows.append(row)
    return _stacked(rows, paper)
