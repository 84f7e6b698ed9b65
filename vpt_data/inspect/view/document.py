"""The document of a page: rows of a corpus chosen, read in full, with their pictures, problems and origins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import Bools, Ints, column
from vpt_data.corpus.reader import Corpus
from vpt_data.errors import UsageError
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import plots, stats
from vpt_data.inspect.view import dropped, flat, index, signals
from vpt_data.inspect.view.choose import Choice, choose
from vpt_data.inspect.view.flat import with_bytes
from vpt_data.inspect.view.item import (
    CorpusEntry,
    Document,
    DropItem,
    Item,
    Numbers,
    Origin,
    Picture,
    Pictures,
    Place,
    PlotEntry,
    Problem,
    Table,
    item,
)
from vpt_data.inspect.view.pictures import Embedded
from vpt_data.store import AnyPath

#: Boxes on nothing are looked for in the whole corpus where it has at most so many rows with a box; else in the chosen.
FLAT_ROWS: Final = 5_000
#: Rows that are Python objects at the same time.
_ROWS: Final = 32


class NoPictures:
    """No pictures, and no reason why."""

    def image(self, row: object, which: int) -> Picture:
        """None."""
        return Picture()

    def crop(self, row: object, number: int) -> Picture:
        """None."""
        return Picture()


Bars = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def no_bars(label: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Progress that nobody sees."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Shown:
    """A corpus with what belongs to it on a page.

    root   the raw root, for images that are not in its shards and for records that it dropped
    """

    corpus: Corpus
    root: AnyPath | None

    @functools.cached_property
    def raw(self) -> ImageRoot | None:
        """The images of the raw root."""
        return None if self.root is None else ImageRoot(self.root)

    @property
    def has_pixels(self) -> bool:
        """Whether there is anywhere to look for the pixels of its images."""
        return self.corpus.embed or self.raw is not None

    @property
    def name(self) -> str:
        """What a page calls it."""
        return self.corpus.place.name

    @functools.cached_property
    def origins(self) -> pa.Table:
        """The table of origins, read once."""
        return self.corpus.origins()

    @functools.cached_property
    def dropped(self) -> pa.Table:
        """The table of drops, read once."""
        return self.corpus.dropped()

    @property
    def dropped_counts(self) -> dict[str, dict[str, int]]:
        """How many records are in no shard, by take and reason."""
        return {part.take: part.dropped for part in self.corpus.manifest.components if part.dropped}

    @functools.cached_property
    def repaired(self) -> pa.Table:
        """Its repaired rows: `index.repaired_rows`."""
        return index.repaired_rows(self.origins)

    def origins_of(self, ids: pa.Array) -> dict[str, Origin]:
        """Where some rows come from, by id."""
        some = self.origins.filter(pc.is_in(self.origins["id"], value_set=ids))
        return {row["id"]: Origin(row["file"], row["row"]) for row in some.to_pylist()}

    def entry(self) -> CorpusEntry:
        """The corpus as the page names it."""
        made = self.corpus.manifest
        return CorpusEntry(
            name=self.name,
            place=str(self.corpus.place),
            rows=sum(part.rows for part in made.splits.values()),
            kind="corpus",
            fingerprint=made.fingerprint,
            mode=made.mode,
            limited=made.limited,
        )


def document(
    shown: Shown,
    choice: Choice,
    where: str | None = None,
    against: Shown | None = None,
    bars: Bars = no_bars,
    drops: int = 0,
) -> Document:
    """The document of one corpus, or of two side by side.

    where     an SQL condition that rows of the first corpus have to fit
    against   a second corpus: the same ids beside the first
    drops     how many records that are in no shard are shown, some of each reason

    Raises UsageError for a condition or an id that does not fit the corpus, CorpusError for a damaged one.
    """
    lines = _index(shown, where, bars)
    other = _index(against, None, bars) if against else None
    among = f"rows of {shown.name}" + (f" with {where}" if where else "")
    chosen = choose(lines, choice, among, None if other is None else _differ(lines, other))
    pictures = Embedded(shown.raw)
    some = lines.take(pa.array(chosen.lines))
    items = items_of(shown, _with_flat(shown, some, bars) if _many_boxes(lines) else some, pictures, bars)
    found = [pictures.found]
    sentence = chosen.sentence
    if against is not None and other is not None:
        beside = Embedded(against.raw, "b")
        items, more = _side_by_side(items, lines, against, other, choice, beside, bars)
        found.append(beside.found)
        sentence = f"{sentence} {more}"
    listed, images_of_drops = _dropped(shown, drops, bars)
    found.append(images_of_drops)
    return Document(
        title=shown.name if against is None else f"{shown.name} beside {against.name}",
        corpora=[shown.entry(), *([against.entry()] if against else [])],
        chosen=sentence,
        items=items,
        dropped=listed,
        dropped_counts=shown.dropped_counts,
        plots=_plots(shown.corpus, bars),
        pictures={key: uri for part in found for key, uri in part.items()},
    )


def items_of(
    shown: Shown, lines: pa.Table, pictures: Pictures, bars: Bars = no_bars, images: bool = True
) -> list[Item]:
    """The items of some lines of an index, in their order; rows are read in full.

    images   with the bytes of embedded images, where `pictures` needs them
    """
    origins, shards = shown.origins_of(column(lines, "id")), shown.corpus.shards()
    shard, number = (column(lines, name).to_numpy() for name in ("shard", "row"))
    found: list[Item | None] = [None] * len(lines)
    facts, done = lines.to_pylist(), 0
    with bars("drawing rows") as progress:
        for part in np.unique(shard).tolist():
            here = np.flatnonzero(shard == part)
            here = here[np.argsort(number[here])]
            rows = shards[part].pick(number[here], images=images and shown.corpus.embed)
            places = iter(here.tolist())
            for batch in rows.to_batches(max_chunksize=_ROWS):
                for row, place in zip(batch.to_pylist(), places, strict=False):
                    stored = Place(shards[part].name, facts[place]["row"])
                    made = _item(with_bytes(row), facts[place], stored, origins.get(row["id"]), pictures)
                    found[place] = _with_missing(made) if shown.has_pixels else made
                    progress(done := done + 1, len(lines))
    return [made for made in found if made is not None]


def _dropped(shown: Shown, places: int, bars: Bars) -> tuple[list[DropItem], dict[str, str]]:
    """Some records that are in no shard, and their pictures by key."""
    if not places:
        return [], {}
    pictures = Embedded(shown.raw, "d")
    with bars("reading dropped records") as progress:
        listed = dropped.items(
            dropped.choose(shown.dropped, places), shown.corpus.manifest, shown.root, pictures, progress
        )
    return listed, pictures.found


def _plots(corpus: Corpus, bars: Bars) -> list[PlotEntry]:
    with bars("drawing plots") as progress:
        found = plots.plots(stats.stats(corpus.place))
        made = []
        for plot in found:
            made.append(PlotEntry(plot.title, plot.svg(), Table(*plot.table), plot.note))
            progress(len(made), len(found))
    return made


def _index(shown: Shown, where: str | None, bars: Bars) -> pa.Table:
    """The index, with boxes on nothing where the corpus is small enough to look at every box."""
    with bars("reading rows") as progress:
        lines = index.read(shown.corpus, index.condition(where) if where else None, progress, raw=shown.raw)
    return lines if _many_boxes(lines) else _with_flat(shown, lines, bars)


def _many_boxes(lines: pa.Table) -> bool:
    return int(_boxes(lines).sum()) > FLAT_ROWS


def _boxes(lines: pa.Table) -> Bools:
    found: Bools = column(lines, "iou").is_valid().to_numpy(zero_copy_only=False)
    return found


def _with_flat(shown: Shown, lines: pa.Table, bars: Bars) -> pa.Table:
    """The lines with boxes on nothing noted among their problems, where there are pixels to look at."""
    boxed = np.flatnonzero(_boxes(lines))
    if not (len(boxed) and shown.has_pixels):
        return lines
    with bars("looking at boxes") as progress:
        flat_ones = boxed[flat.flat_rows(shown.corpus, lines.take(pa.array(boxed)), shown.raw, progress)]
    problems, severity = (column(lines, name).to_numpy().copy() for name in ("problems", "severity"))
    problems[flat_ones] |= np.uint64(1 << index.KINDS.index("flat"))
    severity[flat_ones] += signals.weight("flat")
    for name, values in (("problems", problems), ("severity", severity)):
        place = lines.schema.get_field_index(name)
        lines = lines.set_column(place, lines.schema.field(place), pa.array(values))
    return lines


def _item(row: dict[str, Any], line: dict[str, Any], place: Place, origin: Origin | None, pictures: Pictures) -> Item:
    """The item of a row, from its line of the index."""
    repaired = index.names(line["repaired"], index.REPAIRS)
    kinds = [*index.names(line["problems"], index.KINDS), *repaired]
    return item(
        row, pictures, place=place, origin=origin, repaired=repaired,
        problems=[Problem(kind, signals.text(kind)) for kind in sorted(kinds, key=signals.weight, reverse=True)],
        numbers=_numbers(line),
    )  # fmt: skip


def _with_missing(made: Item) -> Item:
    """The item with a problem where an image cannot be shown."""
    missing = [image.missing for image in made.images if image.missing]
    if not missing:
        return made
    problem = Problem("missing", f"{signals.text('missing')}: {missing[0]}")
    numbers = msgspec.structs.replace(made.numbers, severity=made.numbers.severity + signals.weight("missing"))
    return msgspec.structs.replace(made, problems=[*made.problems, problem], numbers=numbers)


def _numbers(line: dict[str, Any]) -> Numbers:
    area, cells, iou = (_rounded(line[name]) for name in ("box_area", "cells", "iou"))
    return Numbers(area, cells, iou, line["text"], line["severity"])


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _differ(lines: pa.Table, other: pa.Table) -> Bools:
    """Which rows are not in the other corpus, or not the same there: bool[N]."""
    at = pc.index_in(column(lines, "id"), value_set=column(other, "id"))
    same = pc.equal(column(other, "hash").take(at), column(lines, "hash"))
    differ: Bools = ~pc.fill_null(same, False).to_numpy(zero_copy_only=False)
    return differ


def one(shown: Shown, wanted: str) -> tuple[dict[str, Any], Item]:
    """One row with the bytes of its images, and its item without pictures; UsageError where no row has this id."""
    if (found := index.find(shown.corpus, wanted)) is None:
        raise UsageError(f"No row has the id {wanted!r}; give an id as the column `id` has it, such as TAKE/KEY.")
    shard, row = found
    stored = shown.corpus.shards()[shard].pick(np.array([row]), images=shown.corpus.embed)
    lines = index.lines_at(shown.corpus, shard, np.array([row]), shown.repaired)
    return with_bytes(stored.to_pylist()[0]), items_of(shown, lines, NoPictures(), images=False)[0]


def _side_by_side(
    items: Sequence[Item],
    lines: pa.Table,
    against: Shown,
    other: pa.Table,
    choice: Choice,
    pictures: Pictures,
    bars: Bars,
) -> tuple[list[Item], str]:
    """The items beside those with the same ids of the second corpus, some that only it has, and what was found."""
    at = pc.index_in(pa.array([made.id for made in items], pa.string()), value_set=column(other, "id"))
    beside = {made.id: made for made in items_of(against, other.take(at.drop_null()), pictures, bars)}
    found = [
        msgspec.structs.replace(made, other=beside.get(made.id), only_in=None if made.id in beside else 0)
        for made in items
    ]
    only = np.flatnonzero(~pc.is_in(column(other, "id"), value_set=column(lines, "id")).to_numpy(zero_copy_only=False))
    common = len(other) - len(only)
    first, second = f"{len(lines) - common:,} only in the first", f"{len(only):,} only in the second"
    sentence = f"{common:,} ids are in both corpora, {first}, {second}."
    if choice.ids or choice.problems:
        return found, sentence
    some: Ints = only[: max(1, choice.rows // 10)]
    new = items_of(against, other.take(pa.array(some)), pictures, bars)
    return [*found, *(msgspec.structs.replace(made, only_in=1) for made in new)], sentence
