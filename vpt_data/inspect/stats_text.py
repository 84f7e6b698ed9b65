"""The statistics of a corpus for people, as text."""

from __future__ import annotations

from typing import Final

from vpt_data.inspect import stats_tables
from vpt_data.inspect.stats import Statistics
from vpt_data.report import table

_SHADES: Final = " .:-=+*#%@"


def text(found: Statistics) -> str:
    """The statistics for people."""
    lines = [f"{found.recipe}: {found.rows:,} rows, {found.distinct_images:,} distinct images"]
    named = {"splits": found.splits, "tasks": found.task, "templates": found.template, "looks": found.looks}
    lines += [f"{name}: {_counts(counts, '{0} {1:,}')}" for name, counts in named.items()]
    lines += [f"messages a row: {_counts(found.turns, '{0} in {1:,}')}"]
    tables = {
        "Sources": stats_tables.sources(found),
        "Text": stats_tables.texts(found),
        "Boxes": stats_tables.areas(found),
        "Mean IoU of cells and box": stats_tables.grids(found),
        "Image tokens a row for Qwen2-VL, without text": stats_tables.image_tokens(found),
        "Row groups, least / median / most": stats_tables.row_groups(found),
    }
    for title, (header, rows) in tables.items():
        lines += ["", f"{title}:", table(header, rows)] if rows else []
    lines += [line for k, grid in found.heat.items() for line in ("", *_heat(int(k), grid))]
    return "\n".join(lines)


def _counts(counts: dict[str, int], form: str) -> str:
    return ", ".join(form.format(name, count) for name, count in counts.items()) or "-"


def _heat(k: int, grid: list[list[int]]) -> list[str]:
    """A grid as text: the darker the sign, the more boxes touch the cell."""
    most = max(max(row) for row in grid)
    lines = [f"Cells that boxes touch, {k} x {k}, at most {most:,}:"]
    for row in grid:
        shades = (_SHADES[-(-count * (len(_SHADES) - 1) // most)] if most else " " for count in row)
        lines.append("  " + "".join(2 * shade for shade in shades).rstrip())
    return lines
