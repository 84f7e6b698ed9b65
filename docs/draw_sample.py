"""Draw docs/images/sample.png: one row of a corpus as image, grid, box, region, crop and dialogue.

Everything in it comes from the synthetic raw root of `vpt-data sample`, so the picture has no owner but us.
The row is built like any other; what is drawn is what the shard says. Run it again when a row changes:

    python docs/draw_sample.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vpt_data import recipe
from vpt_data.pipeline import build, plan
from vpt_data.synthetic import write_sample

TARGET = Path(__file__).parent / "images" / "sample.png"
TAKE = "textvqa"
SIZE = (1180, 430)
PICTURE = (30, 34, 512)  # left, top and width of the image with its grid
DIALOGUE = 570  # left edge of the dialogue
CROP = 130  # width of the crop in it
INK, FAINT, LOSS, NO_LOSS, REGION = "#1f2328", "#6e7781", "#d7f2dc", "#eff1f4", "#d1242f"
GIVEN = "#0a3fff"


def row_of_sample(raw: Path, work: Path) -> dict[str, Any]:
    """A row of one take, out of a corpus built from the sample raw root: the one that looks at most cells."""
    planned = plan.make(recipe.load("sample"), raw, "reference", None)
    build.build(planned, work)
    tables = [pq.read_table(path) for path in sorted((work / "data").glob("*.parquet"))]
    rows: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist() if row["take"] == TAKE]
    return min(rows, key=_rank)


def _rank(row: dict[str, Any]) -> tuple[int, str, str]:
    col0, row0, col1, row1 = row["views"][1]["cells"]
    return -(col1 - col0 + 1) * (row1 - row0 + 1), row["images"][0]["path"], row["question"]


def draw(raw: Path, target: Path = TARGET) -> None:
    """Write the picture of one row of the sample raw root `raw`."""
    with tempfile.TemporaryDirectory() as work:
        row = row_of_sample(raw, Path(work) / "corpus")
    source = Image.open(raw / row["images"][0]["path"]).convert("RGB")
    sheet = Image.new("RGB", SIZE, "white")
    look = row["views"][1]
    _grid(sheet, source, row["k"], look, [region["box"] for region in row["regions"]])
    _dialogue(sheet, row["messages"], source.crop(look["box"]))
    sheet.save(target, optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _grid(sheet: Image.Image, source: Image.Image, k: int, look: dict[str, Any], given: list[list[float]]) -> None:
    """The image with its cells numbered, the boxes of the source, and the rectangle that the region tokens name."""
    left, top, width = PICTURE
    height = source.height * width // source.width
    sheet.paste(source.resize((width, height)), (left, top))
    pen = ImageDraw.Draw(sheet, "RGBA")
    for n in range(k + 1):
        x, y = left + n * width // k, top + n * height // k
        pen.line((x, top, x, top + height), (255, 255, 255, 150))
        pen.line((left, y, left + width, y), (255, 255, 255, 150))
    for n in range(k):
        middle = (2 * n + 1) / (2 * k)
        pen.text((left + middle * width, top - 10), f"x_{n}", FAINT, _font(13), anchor="mm")
        pen.text((left - 14, top + middle * height), f"y_{n}", FAINT, _font(13), anchor="mm")
    col0, row0, col1, row1 = look["cells"]
    corners = (col0 * width // k, row0 * height // k, (col1 + 1) * width // k, (row1 + 1) * height // k)
    box = tuple(edge + (left if place % 2 == 0 else top) for place, edge in enumerate(corners))
    pen.rectangle(box, (209, 36, 47, 20), REGION, 3)
    for corners in given:
        scaled = [edge * width / source.width + (left if place % 2 == 0 else top) for place, edge in enumerate(corners)]
        pen.rectangle((scaled[0] - 3, scaled[1] - 3, scaled[2] + 3, scaled[3] + 3), None, GIVEN, 2)
    foot = top + height + 18
    pen.text((left, foot), "the box of the source", GIVEN, _font(13), anchor="lm")
    pen.text((left + 160, foot), "the cells that the tokens name: the crop", REGION, _font(13), anchor="lm")


def _dialogue(sheet: Image.Image, messages: list[dict[str, str]], crop: Image.Image) -> None:
    """The turns from top to bottom: those that carry loss on green, the crop beside its placeholder."""
    pen = ImageDraw.Draw(sheet)
    y = PICTURE[1]
    for number, message in enumerate(messages):
        trained, shows = message["role"] == "assistant", number == 2
        lines = _wrapped(message["content"])
        height = max(20 * len(lines) + 34, crop.height * CROP // crop.width + 20 if shows else 0)
        pen.rounded_rectangle((DIALOGUE, y, SIZE[0] - 20, y + height), 8, LOSS if trained else NO_LOSS)
        label = f"{message['role']} - {'carries loss' if trained else 'no loss'}"
        pen.text((DIALOGUE + 12, y + 8), label, FAINT, _font(13))
        pen.multiline_text((DIALOGUE + 12, y + 27), "\n".join(lines), INK, _font(15), spacing=4)
        if shows:
            small = ImageOps.expand(crop.resize((CROP, crop.height * CROP // crop.width)), 2, REGION)
            sheet.paste(small, (DIALOGUE + 130, y + (height - small.height) // 2))
        y += height + 10


def _wrapped(content: str) -> list[str]:
    """Lines short enough for the sheet, broken between words or between tokens."""
    lines: list[str] = []
    for paragraph in content.split("\n"):
        line = ""
        for word in paragraph.replace("><|", "> <|").split(" "):
            joined = "" if line.endswith("|>") and word.startswith("<|") else " "
            longer = f"{line}{joined}{word}".strip()
            line, done = (longer, None) if len(longer) <= 72 else (word, line)
            lines += [done] if done else []
        lines.append(line)
    return lines


def main() -> None:
    """Make the sample raw root in a temporary folder and draw from it."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_sample(raw, rows=200)
        draw(raw)


if __name__ == "__main__":
    main()
