"""Any rows of a whole corpus, as they are asked for: filtered and sorted by its index, read where they are stored."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from vpt_data.columns import Bools, Ints, column, flags, numbers, unlist
from vpt_data.errors import UsageError, VptDataError
from vpt_data.images import views
from vpt_data.images.policy import Failure
from vpt_data.inspect.view import index
from vpt_data.inspect.view.document import Shown, items_of
from vpt_data.inspect.view.flat import with_bytes
from vpt_data.inspect.view.item import Document, DropItem, Item, Picture
from vpt_data.inspect.view.pictures import encoded, loaded

SORTS: Final = {"order": None, "area": "box_area", "iou": "iou", "text": "text", "problems": "severity"}
#: Row groups whose images are kept, since the rows of a page are in few of them.
_GROUPS: Final = 4
_PICTURED: Final = ("id", "images", "image_info", "views")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: any of the values of each filter ("none": rows without one), a text in id, question or answers."""

    FILTERS: ClassVar[tuple[str, ...]] = ("take", "source", "template", "look", "expected", "repaired", "problem")

    take: list[str] = []
    source: list[str] = []
    template: list[str] = []
    look: list[str] = []
    expected: list[str] = []
    repaired: list[str] = []
    problem: list[str] = []
    text: str = ""
    sort: str = "order"
    descending: bool = False


class RowsPage(msgspec.Struct, frozen=True):
    """Some rows of those that fit, and how many fit."""

    total: int
    items: list[Item]


class DropsPage(msgspec.Struct, frozen=True):
    """Some drops of those that fit, and how many fit."""

    total: int
    dropped: list[DropItem]


class Browser:
    """One corpus. Its index is read when something needs it, which waits; the first rows do not need it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._shards = shown.corpus.shards()
        sizes = [shard.record.rows if shard.record else 0 for shard in self._shards]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self._found: pa.Table | VptDataError | None = None
        self._ready = threading.Event()
        self._reading: threading.Thread | None = None
        shown.repaired  # noqa: B018  the first rows need it

    def document(self) -> Document:
        """The document of the page, without rows."""
        return Document(
            title=self._shown.name,
            corpora=[self._shown.entry()],
            chosen=f"All {int(self._starts[-1]):,} rows of {self._shown.name}.",
            dropped_counts=self._shown.dropped_counts,
            api="/api",
        )

    def rows(self, query: Query, offset: int, limit: int) -> RowsPage:
        """Rows that fit, from number `offset` on; UsageError for an unknown order."""
        if query == Query():
            lines = self._in_order(offset, limit)
            return RowsPage(int(self._starts[-1]), self._items(lines))
        found = self._sorted(query)
        return RowsPage(len(found), self._items(self._index().take(pa.array(found[offset : offset + limit]))))

    def row(self, wanted: str) -> Item | None:
        """The row with an id."""
        place = index.find(self._shown.corpus, wanted)
        if place is None:
            return None
        lines = index.lines_at(self._shown.corpus, place[0], np.array([place[1]]), self._shown.repaired)
        return self._items(lines)[0]

    def facets(self) -> dict[str, dict[str, int]]:
        """How many rows have each value of each filter."""
        lines = self._index()
        named = {name: _counted(column(lines, name)) for name in ("take", "source", "template", "expected")}
        looks: Counter[str] = Counter()
        for joined, count in _counted(column(lines, "looks")).items():
            looks.update(dict.fromkeys(joined.split("+"), count))
        return {**named, "look": dict(looks), "repaired": self._bits("repaired"), "problem": self._problems()}

    def dropped(self, take: str | None, reason: str | None, offset: int, limit: int) -> DropsPage:
        """Records that are in no shard."""
        table = self._shown.dropped
        for name, wanted in (("take", take), ("reason", reason)):
            table = table if wanted is None else table.filter(pc.equal(table[name], wanted))
        listed = table.slice(offset, limit).to_pylist()
        return DropsPage(len(table), [DropItem(**row) for row in listed])

    def picture(self, shard: int, row: int, view: bool, number: int, side: int) -> bytes | None:
        """An image of a row, or with `view` what a view cuts out of it, as WebP; None where there is none."""
        if not (shard < len(self._shards) and row < self._starts[shard + 1] - self._starts[shard]):
            return None
        stored = self._stored(shard, row)
        images = stored["images"]
        listed = (stored["views"] or []) if view else images
        if number >= len(listed):
            return None
        which = listed[number]["image"] if view else number
        if not 0 <= which < len(images):
            return None
        whole = loaded(stored, which, self._shown.raw)
        if isinstance(whole, str):
            return None
        cut = _cut(whole, listed[number]["box"]) if view else whole
        return None if cut is None else encoded(cut, side)

    def _read(self) -> None:
        try:
            # One thread: the first rows are asked for at the same time.
            self._found = index.read(self._shown.corpus, threads=1)
        except VptDataError as error:
            self._found = error
        finally:
            self._ready.set()

    def _index(self) -> pa.Table:
        """The index; the first who asks for it starts the reading of it, and all wait for it."""
        with self._lock:
            if self._reading is None:
                self._reading = threading.Thread(target=self._read, daemon=True)
                self._reading.start()
        self._ready.wait()
        if not isinstance(self._found, pa.Table):
            raise self._found or UsageError("The index of the corpus could not be read; start the server again.")
        return self._found

    def _items(self, lines: pa.Table) -> list[Item]:
        places = zip(*(lines[name].to_pylist() for name in ("id", "shard", "row")), strict=True)
        links = _Links(self._shown, {id_: (shard, row) for id_, shard, row in places})
        return items_of(self._shown, lines, links, images=False)

    def _in_order(self, offset: int, limit: int) -> pa.Table:
        """Lines of the corpus in its own order, for which no index is needed."""
        found, end = [index.INDEX.empty_table()], min(offset + limit, int(self._starts[-1]))
        while offset < end:
            shard = int(np.searchsorted(self._starts, offset, side="right")) - 1
            until = min(end, int(self._starts[shard + 1]))
            rows = np.arange(offset, until) - self._starts[shard]
            found.append(index.lines_at(self._shown.corpus, shard, rows, self._shown.repaired))
            offset = until
        return pa.concat_tables(found).unify_dictionaries()

    def _sorted(self, query: Query) -> Ints:
        """The lines that fit, in their order; lines without the number that they are sorted by come last."""
        if query.sort not in SORTS:
            raise UsageError(f"sort is {query.sort[:20]!r}, expected one of {', '.join(SORTS)}.")
        lines = self._index()
        found = np.flatnonzero(self._fitting(query, lines))
        name = SORTS[query.sort]
        if name is None:
            return found[::-1] if query.descending else found
        values = column(lines, name).cast(pa.float64()).to_numpy(zero_copy_only=False)[found]
        return found[np.argsort(-values if query.descending else values, kind="stable")]

    def _fitting(self, query: Query, lines: pa.Table) -> Bools:
        fits = np.ones(len(lines), bool)
        for name in ("take", "source", "template", "expected"):
            if wanted := getattr(query, name):
                fits &= _one_of(column(lines, name), lambda value, wanted=wanted: value in wanted)
        if query.look:
            fits &= _one_of(column(lines, "looks"), lambda value: bool(set(value.split("+")) & set(query.look)))
        if query.repaired:
            fits &= self._having("repaired", index.REPAIRS, query.repaired)
        if query.problem:
            named = [kind for kind in query.problem if kind != "none"]
            some = self._having("problems", index.KINDS, named) | self._having("repaired", index.REPAIRS, named)
            # Every problem and every repair has a weight.
            fits &= some | (column(lines, "severity").to_numpy() == 0) if "none" in query.problem else some
        return fits & self._with_text(query.text) if query.text else fits

    def _having(self, name: str, kinds: tuple[str, ...], wanted: list[str]) -> Bools:
        bits = column(self._index(), name).to_numpy().astype(np.uint64)
        mask = sum(1 << place for place, kind in enumerate(kinds) if kind in wanted)
        found: Bools = (bits & np.uint64(mask)) != 0
        return found | (bits == 0) if "none" in wanted else found

    def _with_text(self, text: str) -> Bools:
        """Lines with a text in id, question or answers, whatever its case; texts are read from the shards each time."""
        found = []
        for shard in self._shards:
            for table in shard.tables(["id", "question", "answers"]):
                hit = _contains(column(table, "id"), text) | _contains(column(table, "question"), text)
                answers = unlist(column(table, "answers"))
                hit[answers.rows[_contains(answers.values, text)]] = True
                found.append(hit)
        return np.concatenate([np.zeros(0, bool), *found])

    def _bits(self, name: str) -> dict[str, int]:
        kinds = index.REPAIRS if name == "repaired" else index.KINDS
        bits = column(self._index(), name).to_numpy().astype(np.uint64)
        counts = [int(np.count_nonzero(bits >> np.uint64(place) & np.uint64(1))) for place in range(len(kinds))]
        named = {**dict(zip(kinds, counts, strict=True)), "none": int((bits == 0).sum())}
        return {kind: count for kind, count in named.items() if count}

    def _problems(self) -> dict[str, int]:
        found = {**self._bits("problems"), **self._bits("repaired")}
        return {kind: count for kind, count in found.items() if kind != "none"}

    def _stored(self, shard: int, row: int) -> dict[str, Any]:
        """The columns of a row that its pictures need."""
        with self._shards[shard].opened() as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        group = int(np.searchsorted(starts, row, side="right")) - 1
        # One at a time: every picture of a page asks for the same few row groups.
        with self._lock:
            table = self._groups.pop((shard, group), None)
            if table is None:
                table = self._shards[shard].row_group(group, _PICTURED, images=self._shown.corpus.embed)
            self._groups[shard, group] = table
            while len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
        return with_bytes(table.slice(row - int(starts[group]), 1).to_pylist()[0])


class _Links:
    """Pictures as addresses on the server; whether an image is there is looked up, and nothing is decoded."""

    def __init__(self, shown: Shown, places: Mapping[str, tuple[int, int]]) -> None:
        self._shown, self._places = shown, places

    def image(self, row: Mapping[str, Any], which: int) -> Picture:
        """The whole image of a row."""
        return self._link(row, which, f"image/{which}")

    def crop(self, row: Mapping[str, Any], number: int) -> Picture:
        """What `views[number]` of a row cuts out of its image."""
        which = row["views"][number]["image"]
        if not 0 <= which < len(row["images"] or []):
            return Picture(missing=f"View {number} shows image {which}, which the row does not have.")
        return self._link(row, which, f"view/{number}")

    def _link(self, row: Mapping[str, Any], which: int, what: str) -> Picture:
        path, raw = row["images"][which]["path"], self._shown.raw
        if not self._shown.corpus.embed:
            if raw is None:
                return Picture(missing=f"{path} is not in the shard; give the raw root that holds it.")
            if isinstance(found := raw.find(path or ""), Failure):
                return Picture(missing=found.detail)
        shard, number = self._places[row["id"]]
        return Picture(f"/picture/{shard}/{number}/{what}")


def _cut(whole: Image.Image, box: list[int] | None) -> Image.Image | None:
    try:
        return whole if box is None else views.pixels(whole, (box[0], box[1], box[2], box[3]))
    except VptDataError:
        return None


def _counted(names: pa.Array) -> dict[str, int]:
    """How often each name occurs, the most frequent first; null is "none"."""
    counts = {entry["values"]: entry["counts"] for entry in names.value_counts().to_pylist()}
    return {name or "none": count for name, count in sorted(counts.items(), key=lambda item: -item[1])}


def _one_of(names: pa.Array, wanted: Any) -> Bools:
    """Which names of a dictionary array are wanted; null is asked for as "none"."""
    good = np.array([wanted(name) for name in [*names.dictionary.to_pylist(), "none"]], bool)
    return good[numbers(names.indices, len(good) - 1)]


def _contains(texts: pa.Array, text: str) -> Bools:
    return flags(pc.match_substring(texts, text, ignore_case=True)).copy()
