"""The account of a corpus for people: one line for each take, the same in the terminal and on the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from vpt_data.corpus.manifest import Manifest
from vpt_data.selection.take_counts import TakeCounts

Counts = Mapping[str, int | Literal["all"]]


class AccountLine(NamedTuple):
    """What became of the records of one take, as text; `expected` is empty for records that no take asked for."""

    take: str
    source: str
    template: str
    expected: str
    read: str
    repaired: str
    dropped: str
    kept: str


def account(manifest: Manifest, counts: Counts | None = None) -> list[AccountLine]:
    """One line for each take, in the order of the manifest.

    counts   what the recipe asks of each take; None: of the recipe in the manifest
    """
    if counts is None:
        takes = manifest.recipe.resolved.get("take", {})
        counts = {name: take.get("count", "all") for name, take in takes.items()}
    return [_line(part, counts.get(part.take)) for part in manifest.components]


def _line(part: TakeCounts, count: int | Literal["all"] | None) -> AccountLine:
    expected = "" if count is None else "all" if count == "all" else f"{part.expected:,}"
    names = " ".join(filter(None, [part.source, ", ".join(datasets(part))]))
    numbers = f"{part.read:,}", _each(part.repaired), _each(part.dropped), f"{part.kept:,}"
    return AccountLine(part.take, names, part.template, expected, *numbers)


def datasets(part: TakeCounts) -> list[str]:
    """The data sets of a take; a component joins their names with `+`."""
    return [name for name in part.dataset.split("+") if name]


def _each(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if count) or "-"
