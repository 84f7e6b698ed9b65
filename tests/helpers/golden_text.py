"""Samples as text that a person can check: one block a sample, line breaks shown as ⏎."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

GOLDEN = Path(__file__).parents[1] / "golden"
MARGIN = " " * 12


def readable(sample: dict[str, Any]) -> str:
    """One row of a SAMPLE table as a few lines."""
    facts = [sample["id"], sample["template"], f"looks={sample['looks']}", f"expected={sample['expected']}"]
    lines = [" | ".join([*facts, f"prompted={sample['prompted']}", f"k={sample['k']}"])]
    for turn in sample["messages"]:
        lines.append(f"  {turn['role']:<10}" + turn["content"].replace("\n", f"⏎\n{MARGIN}"))
    lines += [_view(view) for view in sample["views"]]
    lines.append(f"  question  {sample['question']!r}")
    lines.append(f"  answers   {sample['answers']!r}")
    return "\n".join(lines) + "\n"


def _view(view: dict[str, Any]) -> str:
    where = "whole image" if view["box"] is None else f"pixels {view['box']}"
    cells = "" if view["cells"] is None else f", cells {view['cells']}"
    return f"  view      turn {view['turn']}: image {view['image']} through {view['encoder']}, {where}{cells}"


def check(name: str, samples: pa.Table, update: bool) -> None:
    """Compare with tests/golden/NAME.txt, or write that file."""
    check_text(f"{name}.txt", "\n".join(readable(sample) for sample in samples.to_pylist()), update)


def check_text(name: str, text: str, update: bool) -> None:
    """Compare with tests/golden/NAME, or write that file."""
    path = GOLDEN / name
    if update:
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path.name}: no such file; run `pytest --update-golden` and read what it wrote"
    assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; if that is meant, --update-golden"
