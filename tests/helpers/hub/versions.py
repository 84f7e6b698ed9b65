"""Two versions of a small corpus with its own images, which differ in one row, for tests of publishing."""

from __future__ import annotations

from pathlib import Path

from helpers import end_to_end
from PIL import Image

ROWS = 40
RECIPE = end_to_end.OWN.replace("shards = 4", "shards = 3")


def build(folder: Path, name: str = "own", changed: bool = False, rows: int = ROWS) -> Path:
    """A corpus in a folder of its name, with three shards; `changed` gives one row another answer.

    name   of the recipe; each name has rows of its own
    """
    records = end_to_end.own_rows(rows)
    for record in records:
        record["question"] = record["question"].replace("number", f"{name} number")
    if changed:
        records[7]["answer"] = "something else"
    root = end_to_end.own_root(folder / f"{name}-raw", records)
    (root / "own/images").mkdir(exist_ok=True)
    for number in range(-(-rows // 3)):
        # Another picture for each number, and nearly as large as all of a row's text.
        picture = Image.effect_mandelbrot((640, 480), (-2 + number / 50, -1.2, 1, 1.2), 40).convert("RGB")
        picture.save(root / f"own/images/{number:03d}.jpg", quality=60)
    recipe = end_to_end.recipe_file(folder, RECIPE.replace('name = "own"', f'name = "{name}"'), f"{name}.toml")
    return end_to_end.build(recipe, root, folder / name, mode="embed")
