"""Which records get into the corpus: duplicates, exclusion, claims and quotas, decided on the index alone.

Takes claim records in the order of the recipe. A take reads every record that its data set and forms fit and that is
neither a duplicate nor shows an excluded image (those are dropped once, in the first take that fits); of these it
drops what an earlier take of the same pool has claimed, what its template cannot use, and what is over its quota.
So for every take `read = kept + sum(dropped)`, and a record no take fits is dropped under `unmatched:SOURCE`. A take
with `again` reads only what the take that it names has kept, and claims nothing from it.

All of it is decided partition by partition, since all rows of an image are in one. What reaches further is known
beforehand: the greatest hash that each quota lets in (`quotas`), and duplicates that are in different partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.columns import unlist
from vpt_data.dialogue.ask import uses_labels
from vpt_data.dialogue.regions import RegionState
from vpt_data.dialogue.templates import needs_image, needs_region
from vpt_data.recipe import Recipe
from vpt_data.schema import DROP, Reason, Repair, sample_ids
from vpt_data.selection.index import InputIndex
from vpt_data.selection.pool import Mask, Pool, Rows, compare_records, smallest_of_images, units_of
from vpt_data.selection.take_counts import TakeCounts, drop_rows, empty_counts, unmatched
from vpt_data.take import Take, datasets_of

#: A selected sample: the input and the position in it of its record, the take, the turn of it (-1: not split).
PICKS = pa.schema(
    [
        ("input", pa.int32()), ("position", pa.int64()), ("take", pa.int32()), ("turn", pa.int32()),
        ("row", pa.int64()), ("line", pa.int64()),
        ("order", pa.uint64()), ("identity", pa.uint64()), ("repairs", pa.uint16()),
    ]
)  # fmt: skip
#: The limit of a take whose quota is zero.
NOTHING = -1
#: Two such records would have the same id; see docs/scale.md on how likely that is.
_SAME_KEY = "another record has the same 64-bit key and another content"
_KEPT = pa.schema([PICKS.field(name) for name in ("row", "line", "identity")])
#: What may be wrong with an image whose size had to be read; the index says which, and names the image.
_NO_SIZE_BECAUSE = (Reason.MISSING_IMAGE, Reason.BAD_IMAGE, Reason.UNSAFE_PATH)


class Measured(NamedTuple):
    """What a take without a known limit could use; None where that is not settled.

    It is not settled while an earlier take, whose own limit is not known, may claim some of them.

    orders   the order hash of each sample, of the first one of each image for takes of `distinct_images`
    offered  how many samples there are, of all images
    """

    orders: hashing.UInt64 | None
    offered: int


@dataclass(frozen=True, slots=True)
class SelectionLimits:
    """What decides beyond a partition.

    pools     which pool each take draws from
    limits    the greatest order hash that each take's quota lets in, None without bound; missing: not known yet
    excluded  sorted identity hashes (of the recipe's seed) of images that may not be used, or None
    repeats   (input, row) of records that are dropped, since their duplicate in another partition stays
    licenses  for each take whose annotations the licence policy keeps out, the detail of its drops
    """

    recipe: Recipe
    pools: dict[str, str]
    limits: dict[str, int | None]
    excluded: hashing.UInt64 | None = None
    repeats: frozenset[tuple[int, int]] = frozenset()
    licenses: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Selection:
    """The result: picks (PICKS, by input and position), counts, drop table, images kept, takes still to be limited."""

    picks: pa.Table
    counts: dict[str, TakeCounts]
    drops: pa.Table
    identities: hashing.UInt64
    measured: dict[str, Measured]


def select(limits: SelectionLimits, inputs: Sequence[InputIndex], *, itemise: bool = True) -> Selection:
    """Decide every record of a partition of the `inputs`; with `itemise` every drop gets its row of the drop table."""
    selector = _PartitionSelector(limits, inputs, itemise)
    order: dict[str, list[str]] = {}
    for name in limits.recipe.take:
        order.setdefault(limits.pools[name], []).append(name)
    for pool, takes in order.items():
        selector.decide_pool(pool, takes)
    return selector.result()


class _Unusable(NamedTuple):
    """Units of a take that it cannot use, and why."""

    units: Rows
    turn: npt.NDArray[np.int32]
    reason: Reason
    detail: str | None


class _Usable(NamedTuple):
    """What a take can use of the records that it reads, before its quota.

    units, turn  the record of each sample that could be, and which turn of it (-1: not split)
    order        the hash of the id of each: a quota keeps the smallest
    candidate    False for all but the first sample of each image in takes of `distinct_images`
    read         how many there were, with the `dropped` ones
    """

    units: Rows
    turn: npt.NDArray[np.int32]
    order: hashing.UInt64
    candidate: Mask
    read: int
    dropped: list[_Unusable]


class _PartitionSelector:
    """Decides one partition, pool by pool, and in a pool take by take.

    Two masks over the records of a pool go from take to take:

    claimed  an earlier take keeps the record, so no later take may
    unsure   an earlier take may still keep the record, since it has a quota whose limit is not known yet; how many of
             such records a later take could use is open until a later round

    Three takes that draw from one pool, with six records (their data set; their order hash in the take at work):

        take    data sets  quota                   r1 A   r2 A   r3 A   r4 B   r5 B (repeats r4)   r6 C
        near    A          2, limit known: 40      10     40     70
        mixed   A, B       1, limit not known      50     60     30     20
        rest    A, B       none                    any    any    any    any

    r6 fits no take: it is counted and dropped under `unmatched:SOURCE`. r5 is a duplicate, dropped in the first take
    that fits it, `mixed`. Then `near` reads r1 to r3, keeps r1 and r2 (claimed), and drops r3, over its limit, as
    not_selected. `mixed` has no limit yet, so it is measured: of r1 to r4 it could use those that are not claimed,
    r3 and r4, with hashes 30 and 20. Whether it takes r3 or r4 is open, so r1 to r4 are unsure for `rest`.

    From what all partitions measured, `quotas` finds the limit of `mixed`, 20, and selects again: now `mixed` reads
    r1 to r4, keeps r4, drops r1 and r2 as claimed and r3 as not_selected; `rest` reads r1 to r4, keeps r3, and drops
    the others as claimed. Each take has read = kept + dropped.
    """

    def __init__(self, limits: SelectionLimits, inputs: Sequence[InputIndex], itemise: bool) -> None:
        self._limits = limits
        self._recipe = limits.recipe
        self._inputs = inputs
        self._itemise = itemise
        self._numbers = {name: number for number, name in enumerate(self._recipe.take)}
        self._counts = empty_counts(self._recipe)
        self._picks: list[pa.Table] = []
        self._drops: list[pa.Table] = []
        self._identities: list[hashing.UInt64] = []
        self._measured: dict[str, Measured] = {}

    def result(self) -> Selection:
        """What was decided, when all pools are."""
        picks = pa.concat_tables([PICKS.empty_table(), *self._picks])
        picks = picks.sort_by([("input", "ascending"), ("position", "ascending")])
        drops = pa.concat_tables([DROP.empty_table(), *self._drops])
        identities = np.unique(np.concatenate([np.zeros(0, np.uint64), *self._identities]))
        return Selection(picks, self._counts, drops, identities, self._measured)

    def decide_pool(self, name: str, takes: list[str]) -> None:
        """Decide the records of a pool, which `takes` draw from in this order."""
        pool = Pool([place for place, given in enumerate(self._inputs) if given.pool == name], self._inputs)
        again = {take: self._recipe.take[take].again for take in takes}
        fits: dict[str | None, Mask] = {None: np.ones(pool.size, bool)}
        for take in takes:
            fits[take] = self._fits(pool, self._recipe.take[take]) & fits[again[take]]
        first = np.full(pool.size, -1)
        for take in reversed(takes):
            first[fits[take]] = self._numbers[take]
        self._drop_unmatched(pool, np.flatnonzero(first == -1))
        live = first != -1
        # Where a training take draws too, an equal row under another id would be training on the test.
        for_test = all(self._recipe.take[take].expected is not None for take in takes)
        equals = compare_records(pool, self._inputs, by_id=for_test)
        gone = (
            (Reason.DUPLICATE, _SAME_KEY, equals.other_content),
            (Reason.DUPLICATE, None, ~equals.first | self._repeats(pool)),
            (Reason.EVAL_IMAGE, None, self._shows_excluded(pool)),
        )
        for reason, detail, mask in gone:
            for take in takes:
                rows = np.flatnonzero(live & mask & (first == self._numbers[take]))
                self._counts[take].read += len(rows)
                self._drop(take, pool, rows, reason, given_detail=detail)
            live &= ~mask
        nobody = np.zeros(pool.size, bool)
        claimed, unsure = nobody.copy(), nobody.copy()
        kept: dict[str | None, Mask] = {None: live}
        for take in takes:
            rows = np.flatnonzero(fits[take] & kept[again[take]])
            limited, free = take in self._limits.limits, again[take] is None
            kept[take] = nobody
            if limited:
                kept[take] = self._take(take, pool, rows, claimed if free else nobody)
            else:
                open_yet = unsure[rows].any() if free else again[take] not in self._limits.limits
                found = None if open_yet else self._measure(take, pool, rows, claimed if free else nobody)
                self._measured[take] = found or Measured(None, 0)
            claimed |= kept[take]
            if free and (not limited or unsure[rows].any()):
                unsure[rows] = True

    def _repeats(self, pool: Pool) -> Mask:
        """Records whose duplicate in another partition stays."""
        found = np.zeros(pool.size, bool)
        if self._limits.repeats:
            numbers = np.asarray([given.number for given in self._inputs], np.int64)[pool.input]
            for number in np.unique(numbers):
                rows = [row for place, row in self._limits.repeats if place == number]
                found |= (numbers == number) & np.isin(pool.column("row"), rows)
        return found

    def _fits(self, pool: Pool, take: Take) -> Mask:
        wanted = datasets_of(take)
        mask = np.ones(pool.size, bool)
        if wanted is not None:
            by_file = [place for place in pool.places if self._inputs[place].dataset in wanted]
            by_record = [place for place in pool.places if self._inputs[place].dataset == ""]
            mask = np.isin(pool.input, by_file)
            if by_record:
                mask |= np.isin(pool.input, by_record) & pool.among("dataset", wanted)
        if take.forms is not None:
            mask &= pool.among("form", take.forms)
        return mask

    def _shows_excluded(self, pool: Pool) -> Mask:
        if self._limits.excluded is None or pool.table is None:
            return np.zeros(pool.size, bool)
        mask: Mask = np.isin(pool.column("identity"), self._limits.excluded) & (pool.column("images") > 0)
        more = pool.table["more"].combine_chunks()
        if more.null_count < len(more):
            lengths = pc.fill_null(pc.list_value_length(more), 0).to_numpy(zero_copy_only=False)
            hit = np.isin(more.flatten().to_numpy(), self._limits.excluded)
            mask[np.repeat(np.arange(pool.size), lengths)[hit]] = True
        return mask

    def _partly_held_out(self, pool: Pool, take: Take) -> Mask:
        """Records of which one image is held out and another is not: neither split may have them."""
        mask = np.zeros(pool.size, bool)
        if self._recipe.holdout is None or take.expected is not None or pool.table is None:
            return mask
        more = unlist(pool.table["more"].combine_chunks())
        held = hashing.held_out(pool.column("identity"), self._recipe.holdout)
        further = hashing.held_out(more.values.to_numpy(), self._recipe.holdout)
        mask[more.rows[further != held[more.rows]]] = True
        return mask

    def _take(self, name: str, pool: Pool, rows: Rows, claimed: Mask) -> Mask:
        """One take claims what it can use of `rows`, up to its limit: the records that it keeps."""
        limit = self._limits.limits[name]
        found = self._usable(name, pool, rows, claimed)
        self._counts[name].read += found.read
        for drop in found.dropped:
            self._drop(name, pool, drop.units, drop.reason, drop.turn, drop.detail)
        keep = found.candidate
        if limit is not None:
            keep = keep & (found.order <= np.uint64(limit)) if limit != NOTHING else np.zeros(len(keep), bool)
        self._drop(name, pool, found.units[~keep], Reason.NOT_SELECTED, found.turn[~keep])
        self._keep(name, pool, found.units[keep], found.turn[keep], found.order[keep])
        kept: Mask = np.zeros(pool.size, bool)
        kept[found.units[keep]] = True
        return kept

    def _measure(self, name: str, pool: Pool, rows: Rows, claimed: Mask) -> Measured:
        """What the take could claim if it had no quota."""
        found = self._usable(name, pool, rows, claimed)
        return Measured(found.order[found.candidate], len(found.units))

    def _usable(self, name: str, pool: Pool, rows: Rows, claimed: Mask) -> _Usable:
        """What a take can use of the records that it reads."""
        take = self._recipe.take[name]
        units, turn = units_of(take, pool, rows)
        read, dropped = len(units), []
        for reason, detail, mask in self._unusable(name, pool, units, claimed):
            dropped.append(_Unusable(units[mask], turn[mask], reason, detail))
            units, turn = units[~mask], turn[~mask]
        order = self._order(name, pool, units, turn)
        candidate = np.ones(len(order), bool)
        if take.distinct_images:
            candidate = smallest_of_images(order, pool.column("identity")[units])
        return _Usable(units, turn, order, candidate, read, dropped)

    def _unusable(self, name: str, pool: Pool, units: Rows, claimed: Mask) -> Iterable[tuple[Reason, str | None, Mask]]:
        """Reasons with details and masks; each mask is over the units that the earlier ones left."""
        take, left = self._recipe.take[name], units
        checks: list[tuple[Reason, str | None, Mask]] = [
            (Reason.CLAIMED, None, claimed),
            (Reason.EMPTY_ANSWER, "an answer is empty", pool.column("unanswered") & (take.expected is None)),
            (Reason.EVAL_IMAGE, "only some of its images are held out", self._partly_held_out(pool, take)),
            (Reason.LICENSE, self._limits.licenses.get(name), np.full(pool.size, name in self._limits.licenses)),
            (Reason.MISSING_IMAGE, "the record names no image", (pool.column("images") == 0) & needs_image(take)),
        ]
        if needs_region(take):
            region = pool.column("region")
            unsized = region == RegionState.NO_SIZE
            checks += [(fault, None, unsized & pool.among("fault", [fault])) for fault in _NO_SIZE_BECAUSE]
            checks += [
                (Reason.NO_SIZE, "the size of the image is not known", unsized),
                (Reason.NO_REGION_LEFT, "every box is outside the image", region == RegionState.OUTSIDE),
                (Reason.NO_REGION_LEFT, "the record gives no region", region == RegionState.NONE_GIVEN),
            ]
        if uses_labels(take.ask):
            checks.append(
                (Reason.NO_REGION_LEFT, "`ask` names the label, and no box has one", ~pool.column("labelled"))
            )
        for reason, detail, bad in checks:
            mask = bad[left]
            yield reason, detail, mask
            left = left[~mask]

    def _order(self, name: str, pool: Pool, units: Rows, turn: npt.NDArray[np.int32]) -> hashing.UInt64:
        if pool.table is None or not len(units):
            return np.zeros(0, np.uint64)
        keys = pool.table["key"].take(pa.array(units)).combine_chunks()
        return hashing.seeded(sample_ids(name, keys, turn), self._recipe.seed)

    def _keep(self, name: str, pool: Pool, units: Rows, turn: npt.NDArray[np.int32], order: hashing.UInt64) -> None:
        self._counts[name].kept += len(units)
        self._identities.append(pool.column("identity")[units].astype(np.uint64))
        if not len(units) or pool.table is None:
            return
        given = pool.table.select(_KEPT.names).take(pa.array(units))
        new = {
            "input": np.asarray([given.number for given in self._inputs], np.int32)[pool.input[units]],
            "position": pool.position[units],
            "take": np.full(len(units), self._numbers[name], np.int32),
            "repairs": self._repairs(self._recipe.take[name], pool, units),
            "turn": turn,
            "order": order,
        }
        columns = [new[key] if key in new else given[key] for key in PICKS.names]
        self._picks.append(pa.table(columns, schema=PICKS))

    def _repairs(self, take: Take, pool: Pool, units: Rows) -> npt.NDArray[np.uint16]:
        """The Repair bits of samples: those of the record, and what this take alone repairs or lets pass."""
        repairs: npt.NDArray[np.uint16] = pool.column("repairs")[units].astype(np.uint16)
        if take.expected is not None:
            repairs |= np.where(pool.column("unanswered")[units], np.uint16(Repair.EMPTY_ANSWER), np.uint16(0))
        if take.expected == "region":
            useless = pool.column("region")[units] != RegionState.OK
            repairs |= np.where(useless, np.uint16(Repair.NO_REGION), np.uint16(0))
        if uses_labels(take.ask):
            repairs |= np.where(pool.column("label_tokens")[units], np.uint16(Repair.NEUTRALISED), np.uint16(0))
        return repairs

    def _drop(
        self,
        name: str,
        pool: Pool,
        rows: Rows,
        reason: Reason,
        turn: npt.NDArray[np.int32] | None = None,
        given_detail: str | None = None,
    ) -> None:
        if not len(rows) or pool.table is None:
            return
        self._counts[name].drop(str(reason), len(rows))
        if not self._itemise:
            return
        part = pool.table.select(["dataset", "key", "line", "detail"]).take(pa.array(rows))
        names = pa.array([given.file for given in self._inputs], pa.string())
        detail = pa.nulls(len(rows), pa.string())
        if given_detail is not None:
            detail = pa.repeat(given_detail, len(rows))
        elif reason in _NO_SIZE_BECAUSE:
            detail = part["detail"]
        elif turn is not None and (turn >= 0).any():
            detail = pc.binary_join_element_wise("turn", pa.array(turn).cast(pa.string()), " ")
        files = names.take(pa.array(pool.input[rows]))
        self._drops.append(drop_rows(self._counts[name], part, files, str(reason), detail))

    def _drop_unmatched(self, pool: Pool, rows: Rows) -> None:
        if not len(rows):
            return
        name = unmatched(self._counts, self._inputs[pool.places[0]].source)
        self._counts[name].read += len(rows)
        self._drop(name, pool, rows, Reason.NOT_SELECTED)
