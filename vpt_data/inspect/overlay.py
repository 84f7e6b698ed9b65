"""An image of a row under what the row says of it: annotated boxes, grid, chosen cells.

Red is what the source gave, blue what the model asks for at a region, violet what it asks for through another encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from vpt_data.images import views
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.lettering import Run, font, wrapped, write
from vpt_data.inspect.view.pictures import loaded

Row = Mapping[str, Any]

BOX, CELLS, ENCODER = "#cf222e", "#0550ae", "#8250df"
_TINT = (9, 105, 218, 30)
#: Of an image or box in the picture, in pixels, however thin it is.
SMALLEST = 12
_BOXES = 40
_FIELDS = 12  # of a pattern, on each side


class Frame(NamedTuple):
    """An image of a row as it is drawn: its pixels, or a pattern in their place.

    size  width and height that the boxes of the row are in; the pixels may be a smaller pattern
    why   why there is a pattern; empty where the pixels are those of the image
    """

    pixels: Image.Image
    size: tuple[int, int]
    why: str = ""

    def cut(self, box: Sequence[int] | None) -> Image.Image:
        """The pixels of a view, of a pattern its part; CorpusError for a box that reaches out of the image."""
        if box is None:
            return self.pixels
        x0, y0, x1, y1 = box
        if not self.why:
            return views.pixels(self.pixels, (x0, y0, x1, y1))
        across, down = self.pixels.width / self.size[0], self.pixels.height / self.size[1]
        left, top = int(x0 * across), int(y0 * down)
        return self.pixels.crop((left, top, max(int(x1 * across), left + 1), max(int(y1 * down), top + 1)))


def frame_of(row: Row, which: int, raw: ImageRoot | None, hidden: str) -> Frame:
    """An image of a row; a pattern where its pixels are missing, damaged or hidden."""
    found = hidden or loaded(row, which, raw)
    if isinstance(found, str):
        info = info_of(row, which)
        size = (info.get("width") or 640, info.get("height") or 480)
        return Frame(_pattern(size), size, found.removeprefix(f"{row['id']}: "))
    return Frame(found, found.size)


def info_of(row: Row, which: int) -> Mapping[str, Any]:
    """What the row says of an image; nothing of one that it has no `image_info` for, to which `check` objects."""
    listed = row["image_info"] or []
    return listed[which] if which < len(listed) else {}


def overlaid(row: Row, which: int, frame: Frame, room: tuple[int, int], fine: bool = False) -> Image.Image:
    """The image scaled into `room` (width, height), with its boxes and what the row looks at.

    fine   thin lines, no grid and no labels, for a small picture
    """
    scale = min(room[0] / frame.size[0], room[1] / frame.size[1], 8)
    size = tuple(min(max(SMALLEST, round(side * scale)), most) for side, most in zip(frame.size, room, strict=True))
    panel = frame.pixels.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=2.0)
    factors = (size[0] / frame.size[0], size[1] / frame.size[1])
    pen = ImageDraw.Draw(panel, "RGBA")
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), None, (0, 0, 0, 60))
    shown = [view for view in row["views"] or [] if view["image"] == which]
    wide, k = 2 if fine else 4, max(row["k"] or 0, 0)
    if any(view["cells"] for view in shown) and not fine:
        _grid(pen, panel.size, k)
    for view in shown:
        if view["cells"] and k:
            col0, row0, col1, row1 = view["cells"]
            cells = (col0, row0, col1 + 1, row1 + 1)
            _chosen(pen, _scaled(cells, (size[0] / k, size[1] / k)), wide)
            if row["crop_margin_cells"]:
                pen.rectangle(_scaled(view["box"], factors), None, CELLS, 1)
        elif view["box"]:
            _chosen(pen, _scaled(view["box"], factors), wide)
        elif view["encoder"] != "vlm":
            pen.rectangle((0, 0, size[0] - 1, size[1] - 1), None, ENCODER, wide + 2)
    for box, label in _boxes(row, which):
        _annotate(pen, _around(_scaled(box, factors), panel.size), "" if fine else label, wide - 1)
    return panel


def thumbnail(
    row: Row, raw: ImageRoot | None = None, hidden: str = "", room: tuple[int, int] = (240, 240)
) -> Image.Image:
    """The first image of a row with its boxes and chosen cells, inside `room` (width, height) in pixels."""
    return overlaid(row, 0, frame_of(row, 0, raw, hidden), room, fine=True)


def _boxes(row: Row, which: int) -> list[tuple[tuple[float, ...], str]]:
    """The distinct boxes that the source gave on an image, with their labels."""
    found: dict[tuple[float, ...], str] = {
        tuple(region["box"]): region["label"] or ""
        for region in row["regions"] or []
        if region["image"] == which and region["box"] and all(map(math.isfinite, region["box"]))
    }
    return list(found.items())[:_BOXES]


def _scaled(box: Sequence[float], factors: tuple[float, float]) -> tuple[float, float, float, float]:
    """A box in pixels of the panel, corners sorted, wide enough to be seen."""
    limit = 1e5  # far outside of every panel, and still a number that a pen can go to
    x0, x1 = sorted(max(-limit, min(limit, edge * factors[0])) for edge in box[0::2])
    y0, y1 = sorted(max(-limit, min(limit, edge * factors[1])) for edge in box[1::2])
    wide, high = max(0, SMALLEST - (x1 - x0)) / 2, max(0, SMALLEST - (y1 - y0)) / 2
    return x0 - wide, y0 - high, x1 + wide, y1 + high


def _around(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The line around a box, so that what a small box holds stays legible; at the border it stays inside."""
    x0, y0 = (max(edge - 3, 0) if edge >= 0 else edge - 3 for edge in box[:2])
    x1, y1 = (min(edge + 3, side - 1) if edge <= side else edge + 3 for edge, side in zip(box[2:], size, strict=True))
    return x0, y0, x1, y1


def _chosen(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], wide: int) -> None:
    """What the model asks for: blue, with a thin white line inside that keeps it visible on blue."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), _TINT, "white", wide)
    pen.rectangle(box, None, CELLS, wide)


def _annotate(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], label: str, wide: int) -> None:
    """A box of the source: red, with a thin white line around it that keeps it visible on red."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), None, "white", wide + 1)
    pen.rectangle(box, None, BOX, wide)
    if label:
        [line] = wrapped([Run(label, "white")], 160, 1, font(12))
        width = sum(font(12).getlength(run.text) for run in line)
        top = y0 - 17 if y0 > 17 else y0
        pen.rectangle((x0, top, x0 + width + 8, top + 17), BOX)
        write(pen, (x0 + 4, top + 1), [[run._replace(color="white") for run in line]], 12)


def _grid(pen: ImageDraw.ImageDraw, size: tuple[int, int], k: int) -> None:
    for n in range(1, k):
        x, y = n * size[0] // k, n * size[1] // k
        # A dark line and a bright one side by side are seen on every image.
        for shift, color in ((0, (0, 0, 0, 60)), (1, (255, 255, 255, 150))):
            pen.line((x - shift, 0, x - shift, size[1]), color)
            pen.line((0, y - shift, size[0], y - shift), color)


def _pattern(size: tuple[int, int]) -> Image.Image:
    """Fields of soft colours that change from corner to corner, so that a crop of them shows where it is cut."""
    scale = min(1, 480 / max(size))
    fields = Image.new("RGB", (_FIELDS, _FIELDS))
    for x in range(_FIELDS):
        for y in range(_FIELDS):
            bright = 236 if (x + y) % 2 else 244
            fields.putpixel((x, y), (bright - 4 * (_FIELDS - x), bright - 3 * y, bright - 3 * x))
    return fields.resize(_rounded(size, scale), Image.Resampling.NEAREST)


def _rounded(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
