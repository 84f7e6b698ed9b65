"""Draw docs/images: one row of every kind.

Everything in them comes from the synthetic raw root of `vpt-data sample`, so the pictures have no owner but us.
The rows are built like any other. Run it again when a row or the picture of one changes:

    python docs/draw_sample.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from vpt_data import recipe
from vpt_data.corpus.reader import open_corpus
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import picture
from vpt_data.pipeline import build, plan
from vpt_data.synthetic import write_sample

TARGET = Path(__file__).parent / "images"
#: The name of each picture, and the take that its row is from.
KINDS = {
    "sample": "textvqa",
    "several_regions": "gqa",
    "reencode": "cub",
    "plain": "llava_rest",
    "textbox": "vsr",
    "evaluation": "textcap",
}
#: What makes rows of every kind out of the recipe `sample`.
CHANGES = [
    "take.gqa.boxes=each",
    "take.vsr.template=textbox",
    "take.textcap.expected=region",
    "take.textcap.split=test",
]


def rows_of_sample(raw: Path, work: Path) -> dict[str, dict[str, Any]]:
    """One row for each picture, out of a corpus built from the sample raw root.

    Of two looks rather than one or many, of boxes that are inside their image, and of these the one that looks at most
    cells.
    """
    build.build(plan.make(recipe.load("sample", CHANGES), raw, "reference", None), work)
    rows = list(open_corpus(work).rows())
    return {name: min((row for row in rows if row["take"] == take), key=_rank) for name, take in KINDS.items()}


def _rank(row: dict[str, Any]) -> tuple[int, int, int, str, str]:
    cells = [view["cells"] for view in row["views"] if view["cells"]]
    looked = sum((col1 - col0 + 1) * (row1 - row0 + 1) for col0, row0, col1, row1 in cells)
    outside = sum(not _inside(region["box"], row["image_info"][region["image"]]) for region in row["regions"])
    return outside, abs(len(cells) - 2), -looked, row["images"][0]["path"] if row["images"] else "~", row["question"]


def _inside(box: list[float], info: dict[str, Any]) -> bool:
    return 0 <= box[0] < box[2] <= info["width"] and 0 <= box[1] < box[3] <= info["height"]


def draw(raw: Path, target: Path = TARGET) -> None:
    """Write the pictures of rows of the sample raw root `raw` into a folder."""
    with tempfile.TemporaryDirectory() as work:
        rows = rows_of_sample(raw, Path(work) / "corpus")
    for name, row in rows.items():
        drawn = picture.draw(row, ImageRoot(raw))
        # Few colours are enough for what is drawn, and keep the repository small.
        drawn.quantize(256, dither=Image.Dither.NONE).save(target / f"{name}.png", optimize=True)


def main() -> None:
    """Make the sample raw root in a temporary folder and draw from it."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_sample(raw, rows=200)
        draw(raw)


if __name__ == "__main__":
    main()
