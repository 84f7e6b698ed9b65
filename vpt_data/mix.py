"""Who gets into the corpus: duplicates, exclusion, claims and quotas, decided on the index alone.

Takes claim records in the order of the recipe. A take reads every record that its data set and forms fit and that is
neither a duplicate nor shows an excluded image (those are dropped once, in the first take that fits); of these it
drops what an earlier take of the same pool has claimed, what its template cannot use, and what is over its quota.
So for every take `read = kept + sum(dropped)`, and a record no take fits is dropped under `unmatched:SOURCE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.raw import own_dataset
from vpt_data.recipe import Recipe, Take
from vpt_data.regions import RegionState
from vpt_data.schema import DROP, Reason, sample_ids

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

#: One sample to be: where its record lies in the prepared input, which take, which turn of it (-1: not split).
PICKS = pa.schema(
    [
        ("position", pa.int64()),
        ("take", pa.int32()),
        ("turn", pa.int32()),
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("order", pa.uint64()),
        ("identity", pa.uint64()),
        ("repairs", pa.uint16()),
    ]
)


_KEPT = pa.schema([PICKS.field(name) for name in ("row", "line", "identity", "repairs")])
#: What may be wrong with an image whose size had to be read; the index says which, and names the image.
_NO_SIZE_BECAUSE = (Reason.MISSING_IMAGE, Reason.BAD_IMAGE)


@dataclass(frozen=True, slots=True)
class Input:
    """One prepared input as the mix sees it.

    pool     inputs of one pool are offered to the same takes, in order
    dataset  the data set of the file, or "" where each record says its own
    index    prepare.INDEX; rejects: prepare.REJECTS
    """

    pool: str
    source: str
    dataset: str
    file: str
    index: pa.Table
    rejects: pa.Table


@dataclass(slots=True)
class Component:
    """The account of one take."""

    take: str
    source: str
    dataset: str
    template: str
    expected: int
    read: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0


@dataclass(slots=True)
class Selection:
    """The result: picks per input (PICKS, by position), the account, the drop table, and the images kept."""

    picks: list[pa.Table]
    components: list[Component]
    drops: pa.Table
    identities: hashing.UInt64


def datasets_of(take: Take) -> list[str] | None:
    """The data sets a take names, or None for all of its source."""
    return [take.dataset] if isinstance(take.dataset, str) else take.dataset


def images_of(recipe: Recipe, pools: dict[str, str], inputs: Sequence[Input]) -> hashing.UInt64:
    """The identity hashes of the images that a recipe shows, sorted; `inputs` and `pools` as in `select`."""
    return _mixed(recipe, pools, inputs, None, itemise=False).identities


def select(
    recipe: Recipe, pools: dict[str, str], inputs: Sequence[Input], excluded: hashing.UInt64 | None = None
) -> Selection:
    """Decide every record of `inputs`; `pools` says which pool each take draws from.

    excluded   identity hashes (of this recipe's seed) of images that may not be used
    """
    return _mixed(recipe, pools, inputs, excluded, itemise=True)


def _mixed(
    recipe: Recipe, pools: dict[str, str], inputs: Sequence[Input], excluded: hashing.UInt64 | None, itemise: bool
) -> Selection:
    mixer = _Mixer(recipe, inputs, excluded, itemise)
    order: dict[str, list[str]] = {}
    for name in recipe.take:
        order.setdefault(pools[name], []).append(name)
    for pool, takes in order.items():
        mixer.mix_pool(pool, takes)
    return mixer.result()


class _Pool:
    """The records of all inputs of one pool, as flat columns."""

    def __init__(self, numbers: list[int], inputs: Sequence[Input]) -> None:
        tables = [inputs[number].index for number in numbers]
        lengths = [len(table) for table in tables]
        self.numbers = numbers
        self.input = np.repeat(np.asarray(numbers, np.int64), lengths)
        self.position = np.concatenate([np.arange(length) for length in lengths] or [np.zeros(0, np.int64)])
        whole = pa.concat_tables(tables).combine_chunks() if tables else None
        self.table = whole
        self.size = int(sum(lengths))

    def column(self, name: str) -> np.ndarray:
        """A number column of the index."""
        if self.table is None:
            return np.zeros(0, np.int64)
        column: np.ndarray = self.table[name].to_numpy()
        return column

    def among(self, name: str, values: Iterable[str]) -> Mask:
        """Whether a text column holds one of the values."""
        if self.table is None:
            return np.zeros(0, bool)
        found = pc.is_in(self.table[name], value_set=pa.array(list(values), pa.string()))
        mask: Mask = found.to_numpy()
        return mask


class _Mixer:
    def __init__(self, recipe: Recipe, inputs: Sequence[Input], excluded: hashing.UInt64 | None, itemise: bool) -> None:
        self._recipe = recipe
        self._inputs = inputs
        self._excluded = excluded
        self._itemise = itemise  # whether every drop gets its line, or only counts
        self._numbers = {name: number for number, name in enumerate(recipe.take)}
        self._components = {name: _component(name, take) for name, take in recipe.take.items()}
        self._picks: list[list[pa.Table]] = [[] for _ in inputs]
        self._drops: list[pa.Table] = []
        self._identities: list[hashing.UInt64] = []

    def result(self) -> Selection:
        picks = [pa.concat_tables([PICKS.empty_table(), *parts]).sort_by("position") for parts in self._picks]
        drops = pa.concat_tables([DROP.empty_table(), *self._drops])
        identities = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._identities]))
        return Selection(picks, list(self._components.values()), drops, identities)

    def mix_pool(self, name: str, takes: list[str]) -> None:
        numbers = [number for number, given in enumerate(self._inputs) if given.pool == name]
        pool = _Pool(numbers, self._inputs)
        fits = {take: self._fits(pool, self._recipe.take[take]) for take in takes}
        self._reject(numbers, takes)
        first = np.full(pool.size, -1)
        for take in reversed(takes):
            first[fits[take]] = self._numbers[take]
        self._unmatched(pool, np.flatnonzero(first == -1))
        live = first != -1
        gone = (
            (Reason.DUPLICATE, live & ~_first_of_equals(pool, self._inputs)),
            (Reason.EVAL_IMAGE, self._eval(pool)),
        )
        for reason, mask in gone:
            for take in takes:
                rows = np.flatnonzero(live & mask & (first == self._numbers[take]))
                self._components[take].read += len(rows)
                self._drop(take, pool, rows, reason)
            live &= ~mask
        claimed = np.zeros(pool.size, bool)
        for take in takes:
            self._take(take, pool, np.flatnonzero(fits[take] & live), claimed)

    def _fits(self, pool: _Pool, take: Take) -> Mask:
        wanted = datasets_of(take)
        mask = np.ones(pool.size, bool)
        if wanted is not None:
            by_file = [number for number in pool.numbers if self._inputs[number].dataset in wanted]
            by_record = [number for number in pool.numbers if self._inputs[number].dataset == ""]
            mask = np.isin(pool.input, by_file)
            if by_record:
                mask |= np.isin(pool.input, by_record) & pool.among("dataset", wanted)
        if take.forms is not None:
            mask &= pool.among("form", take.forms)
        return mask

    def _eval(self, pool: _Pool) -> Mask:
        if self._excluded is None or pool.table is None:
            return np.zeros(pool.size, bool)
        mask: Mask = np.isin(pool.column("identity"), self._excluded) & (pool.column("images") > 0)
        more = pool.table["more"].combine_chunks()
        if more.null_count < len(more):
            lengths = pc.fill_null(pc.list_value_length(more), 0).to_numpy(zero_copy_only=False)
            hit = np.isin(more.flatten().to_numpy(), self._excluded)
            mask[np.repeat(np.arange(pool.size), lengths)[hit]] = True
        return mask

    def _take(self, name: str, pool: _Pool, rows: Rows, claimed: Mask) -> None:
        """One take claims what it can use of `rows`, up to its quota; marks it in `claimed`."""
        take = self._recipe.take[name]
        units, turn = rows, np.full(len(rows), -1, np.int32)
        if take.turns == "each":
            pairs = pool.column("pairs")[rows]
            units = np.repeat(rows, pairs)
            turn = (np.arange(len(units)) - np.repeat(np.cumsum(pairs) - pairs, pairs)).astype(np.int32)
        self._components[name].read += len(units)
        for reason, detail, mask in self._unusable(take, pool, units, claimed):
            self._drop(name, pool, units[mask], reason, turn[mask], detail)
            units, turn = units[~mask], turn[~mask]
        order = self._order(name, pool, units, turn)
        count = len(order) if isinstance(take.count, str) else take.count
        if take.share is not None:
            count = min(count, int(take.share * len(order)))
        keep = _within(order, pool.column("identity")[units] if take.distinct_images else None, count)
        self._drop(name, pool, units[~keep], Reason.NOT_SELECTED, turn[~keep])
        self._keep(name, pool, units[keep], turn[keep], order[keep])
        claimed[units[keep]] = True

    def _unusable(
        self, take: Take, pool: _Pool, units: Rows, claimed: Mask
    ) -> Iterable[tuple[Reason, str | None, Mask]]:
        """Reasons with details and masks; each mask is over the units that the earlier ones left."""
        left = units
        imaged = take.template != "plain" or take.expected is not None
        checks: list[tuple[Reason, str | None, Mask]] = [
            (Reason.CLAIMED, None, claimed),
            (Reason.MISSING_IMAGE, "the record names no image", (pool.column("images") == 0) & imaged),
        ]
        if take.template in {"region", "textbox"} or take.expected == "region":
            region = pool.column("region")
            unsized = region == RegionState.NO_SIZE
            checks += [(fault, None, unsized & pool.among("fault", [fault])) for fault in _NO_SIZE_BECAUSE]
            checks += [
                (Reason.NO_SIZE, "the size of the image is not known", unsized),
                (Reason.NO_REGION_LEFT, "every box lies outside the image", region == RegionState.OUTSIDE),
                (Reason.NO_REGION_LEFT, "the record gives no region", region == RegionState.NONE_GIVEN),
            ]
        for reason, detail, bad in checks:
            mask = bad[left]
            yield reason, detail, mask
            left = left[~mask]

    def _order(self, name: str, pool: _Pool, units: Rows, turn: npt.NDArray[np.int32]) -> hashing.UInt64:
        if pool.table is None or not len(units):
            return np.zeros(0, np.uint64)
        keys = pool.table["key"].take(pa.array(units)).combine_chunks()
        return hashing.seeded(sample_ids(name, keys, turn), self._recipe.seed)

    def _keep(self, name: str, pool: _Pool, units: Rows, turn: npt.NDArray[np.int32], order: hashing.UInt64) -> None:
        self._components[name].kept += len(units)
        self._identities.append(pool.column("identity")[units].astype(np.uint64))
        for number in np.unique(pool.input[units]):
            mine = pool.input[units] == number
            chosen = units[mine]
            given = _KEPT.empty_table() if pool.table is None else pool.table.select(_KEPT.names).take(pa.array(chosen))
            new = {
                "position": pool.position[chosen],
                "take": np.full(len(chosen), self._numbers[name], np.int32),
                "turn": turn[mine],
                "order": order[mine],
            }
            columns = [new[key] if key in new else given[key] for key in PICKS.names]
            self._picks[number].append(pa.table(columns, schema=PICKS))

    def _drop(
        self,
        name: str,
        pool: _Pool,
        rows: Rows,
        reason: Reason,
        turn: npt.NDArray[np.int32] | None = None,
        said: str | None = None,
    ) -> None:
        if not len(rows) or pool.table is None:
            return
        self._components[name].dropped[str(reason)] += len(rows)
        if not self._itemise:
            return
        part = pool.table.select(["dataset", "key", "line", "detail"]).take(pa.array(rows))
        names = pa.array([given.file for given in self._inputs])
        detail = pa.nulls(len(rows), pa.string())
        if said is not None:
            detail = pa.repeat(said, len(rows))
        elif reason in _NO_SIZE_BECAUSE:
            detail = part["detail"]
        elif turn is not None and (turn >= 0).any():
            detail = pc.binary_join_element_wise("turn", pa.array(turn).cast(pa.string()), " ")
        files = names.take(pa.array(pool.input[rows]))
        self._itemised(name, part, files, pa.repeat(str(reason), len(rows)), detail)

    def _itemised(self, name: str, part: pa.Table, files: pa.Array, reasons: pa.Array, details: pa.Array) -> None:
        take, source = (pa.repeat(text, len(part)) for text in (name, self._components[name].source))
        columns = [take, source, part["dataset"], part["key"], files, part["line"], reasons, details]
        self._drops.append(pa.table(columns, schema=DROP))

    def _unmatched(self, pool: _Pool, rows: Rows) -> None:
        if not len(rows):
            return
        name = self._unmatched_name(pool.numbers[0])
        self._components[name].read += len(rows)
        self._drop(name, pool, rows, Reason.NOT_SELECTED)

    def _unmatched_name(self, number: int) -> str:
        source = self._inputs[number].source
        name = f"unmatched:{source}"
        self._components.setdefault(name, Component(name, source, "", "", 0))
        return name

    def _reject(self, numbers: list[int], takes: list[str]) -> None:
        """Account for the records that could not even be read, under the first take that would have read them."""
        for number in numbers:
            given = self._inputs[number]
            for dataset in pc.unique(given.rejects["dataset"]).to_pylist():
                same = pc.equal(given.rejects["dataset"], dataset) if dataset else pc.is_null(given.rejects["dataset"])
                part = given.rejects.filter(same)
                asked = given.dataset or dataset
                wanted = [take for take in takes if _reads(self._recipe.take[take], asked)]
                name = wanted[0] if wanted else self._unmatched_name(number)
                self._components[name].read += len(part)
                self._components[name].dropped.update(part["reason"].to_pylist())
                self._itemised(name, part, pa.repeat(given.file, len(part)), part["reason"], part["detail"])


def _reads(take: Take, dataset: str | None) -> bool:
    wanted = datasets_of(take)
    return wanted is None or dataset in wanted


def _component(name: str, take: Take) -> Component:
    dataset = "+".join(datasets_of(take) or ([own_dataset(take)] if take.files else []))
    expected = take.count if isinstance(take.count, int) else 0
    return Component(name, take.source, dataset, take.template, expected)


def _first_of_equals(pool: _Pool, inputs: Sequence[Input]) -> Mask:
    """True for one record of each group of duplicates: the smallest by content, then by file name and row."""
    if pool.table is None:
        return np.zeros(0, bool)
    record = pool.column("record")
    _, inverse, counts = np.unique(record, return_inverse=True, return_counts=True)
    keep = np.ones(pool.size, bool)
    repeated = np.flatnonzero(counts[inverse] > 1)
    if len(repeated):
        names = {number: place for place, number in enumerate(sorted(pool.numbers, key=lambda n: inputs[n].file))}
        place = np.asarray([names[number] for number in pool.input[repeated]])
        variant, row = pool.column("variant")[repeated], pool.column("row")[repeated]
        order = repeated[np.lexsort((row, place, variant, record[repeated]))]
        keep[order[1:][record[order[1:]] == record[order[:-1]]]] = False
    return keep


def _within(order: hashing.UInt64, images: np.ndarray | None, count: int) -> Mask:
    """The `count` smallest hashes, at most one for each image where `images` is given."""
    rank = np.argsort(order, kind="stable")
    if images is not None:
        _, first = np.unique(images[rank], return_index=True)
        rank = rank[np.sort(first)]
    keep = np.zeros(len(order), bool)
    keep[rank[:count]] = True
    return keep
