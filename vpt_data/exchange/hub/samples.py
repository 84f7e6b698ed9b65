"""Which rows a card shows: for each take a few, for each kind of row one, the same for the same corpus.

Rows whose images may be handed on come first. Row groups are read from the first on, their columns without pixels,
until every take has enough; a row group holds images by their hash, so the first ones are no special ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import unlist
from vpt_data.corpus.reader import Corpus, Shard
from vpt_data.errors import VptDataError
from vpt_data.exchange.hub.redistribution import OWN
from vpt_data.hashing import seeded
from vpt_data.images import views
from vpt_data.images.root import ImageRoot
from vpt_data.upstream.catalog import image_set
from vpt_data.upstream.licenses import redistribution_of

#: Rows of a take that the card shows.
EACH: Final = 5
_COLUMNS: Final = ("id", "take", "template", "expected", "looks", "images", "image_info")
_NOT_THERE: Final = (
    "The images are not in this data set, so a pattern stands for this one; boxes and cells are at their true places."
)


class Sample(NamedTuple):
    """A row with its pixels, and the sentence that says why none of them may be seen; empty where they may."""

    row: Mapping[str, Any]
    hidden: str


class _Place(NamedTuple):
    """Where a row is, and how much it is wanted: those with the smallest `rank` first."""

    rank: tuple[bool, bool, int, int]
    shard: int
    group: int
    line: int
    image: str


@dataclass
class _Wanted:
    """The best places that were seen for a take or for a kind of row, of different images."""

    most: int
    places: list[_Place] = field(default_factory=list)

    def offer(self, place: _Place) -> None:
        if all(place.image != other.image or not place.image for other in self.places):
            self.places = sorted([*self.places, place])[: self.most]

    @property
    def full(self) -> bool:
        """Whether there are enough with an image that may be seen."""
        return len(self.places) == self.most and not any(any(place.rank[:2]) for place in self.places)


@dataclass(frozen=True, slots=True)
class Samples:
    """The rows that a card shows: one for each kind of row, a few for each take."""

    kinds: dict[str, Sample]
    takes: dict[str, list[Sample]]


def samples(corpus: Corpus, raw: ImageRoot | None, allowed: Collection[str] = ()) -> Samples:
    """Choose the rows of a corpus that its card shows, and read them.

    raw      the raw root, for images that are not in the shards
    allowed  image sets (`coco/train2017/`, or "own") whose images may be handed on, whatever their licence says
    """
    shards = corpus.shards()
    names = [part.take for part in corpus.manifest.components if part.kept]
    takes = {name: _Wanted(EACH) for name in names}
    kinds: dict[str, _Wanted] = {}
    for number, (shard, group) in enumerate(_groups(shards)):
        if all(wanted.full for wanted in takes.values()):
            break
        table = shards[shard].row_group(group, _COLUMNS)
        places = _places(table, shard, group, number, allowed)
        for take, kind, place in zip(table["take"].to_pylist(), _kinds(table).to_pylist(), places, strict=True):
            takes[take].offer(place)
            kinds.setdefault(kind, _Wanted(1)).offer(place)
    chosen = {place for wanted in (*takes.values(), *kinds.values()) for place in wanted.places}
    read = _read(shards, chosen)
    found = {place: Sample(row, _hidden(row, raw, allowed)) for place, row in read.items()}
    return Samples(
        {kind: found[wanted.places[0]] for kind, wanted in sorted(kinds.items())},
        {name: [found[place] for place in wanted.places] for name, wanted in takes.items() if wanted.places},
    )


def _groups(shards: list[Shard]) -> Iterator[tuple[int, int]]:
    for number, shard in enumerate(shards):
        with shard.opened() as file:
            count = file.num_row_groups
        yield from ((number, group) for group in range(count))


def _places(table: pa.Table, shard: int, group: int, number: int, allowed: Collection[str]) -> Iterator[_Place]:
    """The place of every row of a row group; `number` counts row groups over all shards."""
    listed = unlist(table["image_info"].combine_chunks())
    paths = unlist(table["images"].combine_chunks()).values.field("path").to_pylist()
    terms = listed.values.field("license").to_pylist()
    refused = [not may_be_shown(path, license_id, allowed) for path, license_id in zip(paths, terms, strict=True)]
    hidden = np.bincount(listed.rows, weights=refused, minlength=len(table)) > 0
    first: dict[int, str] = {}
    for line, path in zip(listed.rows.tolist(), paths, strict=True):
        first.setdefault(line, path or "")
    order = seeded(table["id"].combine_chunks(), 0).tolist()
    for line, (shut, rank) in enumerate(zip(hidden.tolist(), order, strict=True)):
        yield _Place((line not in first, shut, number, rank), shard, group, line, first.get(line, ""))


def may_be_shown(path: str | None, license_id: str | None, allowed: Collection[str]) -> bool:
    """Whether an image may be part of a public picture."""
    if redistribution_of(license_id) == "allowed":
        return True
    found = image_set(path.rpartition("/")[0]) if path else None
    return (found[0] if found else OWN) in allowed


def _kinds(table: pa.Table) -> pa.Array:
    """What kind of row each is, as the card names it: its template, `several regions` or `evaluation`."""
    several = pc.greater(pc.fill_null(pc.list_value_length(table["looks"]), 0), 1)
    named = pc.if_else(pc.and_(several, pc.equal(table["template"], "region")), "several regions", table["template"])
    return pc.if_else(pc.is_valid(table["expected"]), "evaluation", named)


def _read(shards: list[Shard], chosen: Collection[_Place]) -> dict[_Place, dict[str, Any]]:
    """The rows at these places; each row group is read once."""
    found = {}
    for shard, group in sorted({(place.shard, place.group) for place in chosen}):
        table = shards[shard].row_group(group, images=True)
        for place in chosen:
            if (place.shard, place.group) == (shard, group):
                [found[place]] = table.slice(place.line, 1).to_pylist()
    return found


def _hidden(row: Mapping[str, Any], raw: ImageRoot | None, allowed: Collection[str]) -> str:
    """Why no pixels of a row may be seen, as a sentence."""
    for which, (entry, info) in enumerate(zip(row["images"], row["image_info"], strict=True)):
        if not may_be_shown(entry["path"], info["license"], allowed):
            forbids = redistribution_of(info["license"]) == "forbidden"
            terms = "forbid to hand it on" if forbids else "do not say that it may be handed on"
            return (
                f"A pattern stands for this image, because its terms ({info['license'] or 'none are stated'}) {terms}; "
                "boxes and cells are at their true places."
            )
        if entry["bytes"] is None:
            try:
                views.image(row, which, raw)
            except VptDataError:
                return _NOT_THERE
    return ""
