"""What is not the same in two corpora, or in a corpus and a published file: counted, with examples.

Of every row its name and a few hashes of 8 bytes are kept; the rows of the examples are read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from vpt_data.exchange.comparison.pairs import out_of_order, paired
from vpt_data.exchange.comparison.side import Side
from vpt_data.exchange.comparison.signatures import KEYS, PARTS, SIGNATURE, signatures
from vpt_data.report import visible_line

#: Kinds of differences, and what each means.
KINDS: Final = {
    "only_in_a": "these rows are not in b",
    "only_in_b": "these rows are not in a",
    **PARTS,
    "order": "so many rows would have to move for both to have the same order",
    "not_compared": "records of a published file that no corpus can hold",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A row that is not the same: what each side calls it (None where it is not there), and what it has there."""

    kind: str
    a: str | None
    b: str | None
    in_a: str
    in_b: str


@dataclass(frozen=True, slots=True)
class Difference:
    """The result of a comparison.

    rows    the rows of both sides; `paired` of them are on both, `same` of these in every respect that was looked at
    kinds   how many rows differ in which way; a row may differ in several
    takes   the same by the take of the row (in a, where it is there), of `not_compared` by reason
    """

    a: str
    b: str
    rows: tuple[int, int]
    paired: int
    same: int
    kinds: dict[str, int]
    takes: dict[str, dict[str, int]]
    examples: list[Example]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values for JSON."""
        return asdict(self) | {"rows": {"a": self.rows[0], "b": self.rows[1]}, "differ": bool(self.kinds)}

    def text(self) -> str:
        """The result for people."""
        lines = [f"{side}: {visible_line(name)}  {rows:,} rows" for side, name, rows in self._sides()]
        lines.append(f"{self.paired:,} rows are in both, {self.same:,} of them without a difference.")
        for kind, count in self.kinds.items():
            takes = ", ".join(f"{take} {number:,}" for take, number in sorted(self.takes[kind].items()))
            lines.append(f"{kind} ({count:,}): {KINDS[kind]}; {takes}.")
            for example in (example for example in self.examples if example.kind == kind):
                lines.append(f"    {visible_line(' = '.join(dict.fromkeys(filter(None, (example.a, example.b)))))}")
                said = (("a", example.in_a), ("b", example.in_b))
                lines += [f"        {side}  {visible_line(text)}" for side, text in said if text]
        return "\n".join(lines)

    def _sides(self) -> list[tuple[str, str, int]]:
        return [("a", self.a, self.rows[0]), ("b", self.b, self.rows[1])]


def difference(
    a: Side, b: Side, ignore: Collection[str] = (), examples: int = 3,
    progress: Callable[[int], None] = lambda rows: None,
) -> Difference:  # fmt: skip
    """Compare two sides row by row.

    ignore     kinds that are not looked at
    examples   how many of each kind
    progress   is called with the number of rows of each piece that was read
    """
    mine, theirs = _signed(a, progress), _signed(b, progress)
    in_a, in_b = paired(_hashes(mine, KEYS), _hashes(theirs, KEYS))
    differ = {
        part: one[in_a] != other[in_b]
        for part, one, other in zip(PARTS, _hashes(mine, PARTS), _hashes(theirs, PARTS), strict=True)
    } | {"order": out_of_order(in_b)}
    differ = {kind: bad for kind, bad in differ.items() if kind not in ignore}
    places = {
        "only_in_a": (mine, np.setdiff1d(np.arange(len(mine)), in_a)),
        "only_in_b": (theirs, np.setdiff1d(np.arange(len(theirs)), in_b)),
        **{kind: (mine, in_a[bad]) for kind, bad in differ.items()},
    }
    found = {kind: where for kind, where in places.items() if len(where[1]) and kind not in ignore}
    takes = {kind: dict(Counter(table["take"].take(pa.array(at)).to_pylist())) for kind, (table, at) in found.items()}
    if (refused := a.refused + b.refused) and "not_compared" not in ignore:
        takes["not_compared"] = dict(refused)
    partners = dict(zip(in_a.tolist(), in_b.tolist(), strict=True))
    chosen = {kind: at[:examples] for kind, (_, at) in found.items()}
    named = [
        (kind, *_names(kind, place, mine, theirs, partners)) for kind, at in chosen.items() for place in at.tolist()
    ]
    same = len(in_a) - int(np.logical_or.reduce(list(differ.values())).sum()) if differ else len(in_a)
    return Difference(
        str(a.place), str(b.place), (len(mine), len(theirs)), len(in_a), same,
        {kind: sum(counts.values()) for kind, counts in takes.items()}, takes, _examples(a, b, named),
    )  # fmt: skip


def _signed(side: Side, progress: Callable[[int], None]) -> pa.Table:
    parts = [SIGNATURE.empty_table()]
    for names, samples in side.parts():
        parts.append(signatures(names, samples))
        progress(len(samples))
    return pa.concat_tables(parts)


def _hashes(signed: pa.Table, names: Collection[str]) -> list[np.ndarray]:
    return [signed[name].to_numpy() for name in names]


def _names(
    kind: str, place: int, mine: pa.Table, theirs: pa.Table, partners: Mapping[int, int]
) -> tuple[str | None, str | None]:
    """What both sides call a row, by its place in a, or in b where only b has it."""
    if kind == "only_in_b":
        return None, theirs["name"][place].as_py()
    at = partners.get(place)
    return mine["name"][place].as_py(), None if at is None else theirs["name"][at].as_py()


def _examples(a: Side, b: Side, named: list[tuple[str, str | None, str | None]]) -> list[Example]:
    mine = a.rows({one for _, one, _ in named if one is not None})
    theirs = b.rows({other for _, _, other in named if other is not None})
    return [
        Example(kind, one, other, *_said(kind, mine.get(one or ""), theirs.get(other or "")))
        for kind, one, other in named
    ]


def _said(kind: str, a: dict[str, Any] | None, b: dict[str, Any] | None) -> tuple[str, str]:
    """What a row has on both sides, as far as it says the difference."""
    if kind == "order":
        return "", ""
    if kind in {"crops", "images"}:
        return _shown(kind, a), _shown(kind, b)
    mine, theirs = _contents(a), _contents(b)
    if len(mine) != len(theirs):
        return " | ".join(mine), " | ".join(theirs)
    return next(((one, other) for one, other in zip(mine, theirs, strict=True) if one != other), ("", ""))


def _contents(row: dict[str, Any] | None) -> list[str]:
    return [message["content"] for message in row["messages"]] if row else []


def _shown(kind: str, row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    paths, views = [image["path"] for image in row["images"]], row["views"]
    if kind == "crops":
        return ", ".join(str(view["box"]) for view in views if view["box"]) or "no crop"
    return ", ".join(f"{paths[view['image']]} in turn {view['turn']} through {view['encoder']}" for view in views)
