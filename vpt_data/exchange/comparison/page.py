"""The examples of a comparison as a page: the row of one side beside that of the other."""

from __future__ import annotations

from typing import Any

import msgspec

from vpt_data.exchange.comparison.difference import KINDS, Difference
from vpt_data.exchange.comparison.side import Side
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.view.item import CorpusEntry, Document, Item, Numbers, Problem, item
from vpt_data.inspect.view.pictures import Embedded
from vpt_data.inspect.view.signals import RULE_WEIGHT
from vpt_data.store import AnyPath


def document(a: Side, b: Side, found: Difference, root: AnyPath | None) -> Document:
    """The examples of `found`, each row once, with its kinds of differences as problems.

    root   the raw root, for images that are not in the shards
    """
    raw = None if root is None else ImageRoot(root)
    pictures = Embedded(raw), Embedded(raw, "b")
    kinds: dict[tuple[str | None, str | None], list[str]] = {}
    for example in found.examples:
        kinds.setdefault((example.a, example.b), []).append(example.kind)
    mine, theirs = a.rows({one for one, _ in kinds if one}), b.rows({other for _, other in kinds if other})
    items = []
    for (one, other), names in kinds.items():
        left = _item(one, mine, names, pictures[0])
        right = _item(other, theirs, names, pictures[1])
        if left is not None:
            items.append(msgspec.structs.replace(left, other=right, only_in=None if right else 0))
        elif right is not None:
            items.append(msgspec.structs.replace(right, only_in=1))
    counts = ", ".join(f"{kind} {count:,}" for kind, count in found.kinds.items()) or "no difference"
    return Document(
        title=f"{a.place.name} beside {b.place.name}",
        corpora=[_entry(a, found.rows[0]), _entry(b, found.rows[1])],
        chosen=f"Examples: {len(items):,}. {found.paired:,} rows are in both, {found.same:,} are the same: {counts}.",
        items=items,
        pictures={**pictures[0].found, **pictures[1].found},
    )


def _item(name: str | None, rows: dict[str, dict[str, Any]], kinds: list[str], pictures: Embedded) -> Item | None:
    if name is None:
        return None
    row = rows[name]
    return item(
        {**row, "id": name},
        pictures,
        problems=[Problem(kind, KINDS[kind]) for kind in kinds],
        numbers=Numbers(text=sum(len(turn["content"]) for turn in row["messages"]), severity=RULE_WEIGHT * len(kinds)),
    )


def _entry(side: Side, rows: int) -> CorpusEntry:
    kind = "published" if side.corpus is None else "corpus"
    return CorpusEntry(name=side.place.name, place=str(side.place), rows=rows, kind=kind)
