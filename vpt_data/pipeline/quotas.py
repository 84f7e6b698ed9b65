"""What the quotas let in: the greatest order hash of each take, and which images and twins may not be used.

A take with a quota keeps the samples with the smallest hashes. What an earlier take of its pool claims is not
offered to it, so limits are found in rounds; in each, every partition writes what the takes whose turn it is could
use. Only the smallest hashes of each partition are kept, so memory grows with the quotas and not with the corpus.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing, store
from vpt_data.pipeline import plan
from vpt_data.pipeline.engines.task import Engine, Task
from vpt_data.pipeline.open_files import find_offsets, index, offset
from vpt_data.pipeline.workspace import Work
from vpt_data.recipe import Recipe
from vpt_data.selection.select import NOTHING, SelectionLimits, select
from vpt_data.selection.take_counts import TakeCounts
from vpt_data.take import Take, datasets_of
from vpt_data.upstream import licenses

_FOUND = pa.schema([("take", pa.int32()), ("order", pa.uint64())])
Limits = dict[str, int | None]


class _Round(msgspec.Struct):
    """What a partition reported in a round, besides the hashes: (candidates, samples offered) of each take.

    None where it was not the take's turn.
    """

    counts: dict[str, tuple[int, int] | None]


def settle(work: Work, engine: Engine) -> None:
    """Find the limits of the recipe, after the images that its excluded recipes show; pass 1 must be done."""
    if work.quota("main.json").is_file():
        return
    find_offsets(work)
    identities = [np.zeros(0, np.uint64)]
    for number in range(len(work.plan.excluded)):
        _find_limits(work, engine, number)
        identities += _excluded_images(work, engine, number)
    store.write_arrow(work.quota("excluded.arrow"), pa.table({"identity": np.unique(np.concatenate(identities))}))
    _find_limits(work, engine, None)


def _find_limits(work: Work, engine: Engine, excluded: int | None) -> None:
    """Write the limits of a recipe: that of the build (None), or one that it excludes, by number."""
    recipe = _recipe(work, excluded)
    _find_repeats(work, excluded)
    known = _unbounded(work, recipe, excluded)
    round_number = 0
    while set(known) != set(recipe.take):
        every = range(work.plan.partitions)
        tasks = [_measuring(work, excluded, round_number, partition, known) for partition in every]
        engine.run_all(tasks, "quotas")
        known = known | _limits(work, recipe, [task.done for task in tasks])
        round_number += 1
    store.write(work.quota(f"{_name(excluded)}.json"), msgspec.json.encode(known))


def selection_limits(work: Work, excluded: int | None = None, limits: Limits | None = None) -> SelectionLimits:
    """What the selection of a partition needs; `limits` in place of those that are settled."""
    name = _name(excluded)
    if limits is None:
        limits = msgspec.json.decode(work.quota(f"{name}.json").read_bytes(), type=Limits)
    twins = msgspec.json.decode(work.quota(f"{name}.twins").read_bytes(), type=list[tuple[int, int]])
    found = SelectionLimits(_recipe(work, excluded), _pools(work, excluded), limits, repeats=frozenset(twins))
    if excluded is not None:
        return found
    images = store.read_arrow(work.quota("excluded.arrow"))["identity"].to_numpy() if work.plan.excluded else None
    return replace(found, licenses=_forbidden(work), excluded=images)


def _forbidden(work: Work) -> dict[str, str]:
    """The takes whose annotations the licence policy does not let in, each with the detail of its drops."""
    return {
        rule.take: licenses.refusal(work.plan.policy, rule.license)
        for rule in plan.render_rules(work.recipe)
        if not licenses.allows(work.plan.policy, rule.license)
    }


def _recipe(work: Work, excluded: int | None) -> Recipe:
    """The recipe of the build, or one that it excludes."""
    return work.recipe if excluded is None else work.plan.excluded[excluded]


def _pools(work: Work, excluded: int | None) -> dict[str, str]:
    return work.plan.pools if excluded is None else work.plan.excluded_pools[excluded]


def _name(excluded: int | None) -> str:
    return "main" if excluded is None else f"excluded-{excluded}"


def _unbounded(work: Work, recipe: Recipe, excluded: int | None) -> Limits:
    """Takes that ask for all there is, or for more than there can be."""
    return {name: None for name, take in recipe.take.items() if _asks_for_all(work, name, take, excluded)}


def _asks_for_all(work: Work, name: str, take: Take, excluded: int | None) -> bool:
    if take.share is not None or (take.turns == "each" and take.count != "all"):
        return False
    if isinstance(take.count, str):
        return True
    pools, wanted = _pools(work, excluded), datasets_of(take)
    there = 0
    for number, given in enumerate(work.plan.inputs):
        if given.pool == pools[name] and (wanted is None or given.job.dataset in {"", *wanted}):
            there += work.prepared(number).read_record().records
    return there <= take.count


def _measuring(work: Work, excluded: int | None, round_number: int, partition: int, known: Limits) -> Task:
    done = work.quota(f"{_name(excluded)}-{round_number}-{partition:05d}.arrow")
    return Task(measure, (work, excluded, round_number, partition, known), done)


def measure(work: Work, excluded: int | None, round_number: int, partition: int, known: Limits) -> None:
    """Write what the takes without a limit could use of one partition: the smallest hashes, up to each quota."""
    found = select(
        selection_limits(work, excluded, known), index(work, partition, main=excluded is None), itemise=False
    ).measured
    recipe = _recipe(work, excluded)
    tables: list[pa.Table] = [_FOUND.empty_table()]
    counts: dict[str, tuple[int, int] | None] = {}
    for number, name in enumerate(recipe.take):
        if name not in found:
            continue
        orders = found[name].orders
        counts[name] = None if orders is None else (len(orders), found[name].offered)
        if orders is not None:
            few = _smallest(orders, recipe.take[name].count)
            tables.append(pa.table([np.full(len(few), number, np.int32), few], schema=_FOUND))
    table = pa.concat_tables(tables).replace_schema_metadata({"round": msgspec.json.encode(_Round(counts))})
    task = _measuring(work, excluded, round_number, partition, known)
    store.write_arrow(task.done, table)


def _smallest(orders: hashing.UInt64, count: int | str) -> hashing.UInt64:
    if isinstance(count, str) or len(orders) <= count:
        return orders
    return np.partition(orders, count)[:count] if count else orders[:0]


def _limits(work: Work, recipe: Recipe, files: list[store.AnyPath]) -> Limits:
    """The limits of the takes that every partition could measure."""
    smallest: dict[str, hashing.UInt64] = {}
    totals: dict[str, tuple[int, int]] = {}
    later: set[str] = set()
    names = list(recipe.take)
    for file in files:
        table = store.read_arrow(file)
        counts = msgspec.json.decode(table.schema.metadata[b"round"], type=_Round).counts
        number, order = table["take"].to_numpy(), table["order"].to_numpy()
        for name, count in counts.items():
            if count is None:
                later.add(name)
                continue
            fresh = order[number == names.index(name)]
            so_far = smallest.get(name, order[:0])
            smallest[name] = _smallest(np.concatenate([so_far, fresh]), recipe.take[name].count)
            before = totals.get(name, (0, 0))
            totals[name] = (before[0] + count[0], before[1] + count[1])
    return {
        name: _limit(recipe.take[name], smallest[name], *total) for name, total in totals.items() if name not in later
    }


def _limit(take: Take, smallest: hashing.UInt64, total: int, offered: int) -> int | None:
    count = total if isinstance(take.count, str) else take.count
    if take.share is not None:
        count = min(count, int(take.share * offered))
    if total <= count:
        return None
    return int(np.sort(smallest)[count - 1]) if count else NOTHING


def _excluded_images(work: Work, engine: Engine, excluded: int) -> list[hashing.UInt64]:
    """The identity hashes of the images that an excluded recipe shows, partition by partition."""
    tasks = [
        Task(find_images, (work, excluded, partition), work.quota(f"images-{excluded}-{partition:05d}.arrow"))
        for partition in range(work.plan.partitions)
    ]
    engine.run_all(tasks, "evaluation images")
    return [store.read_arrow(task.done)["identity"].to_numpy() for task in tasks]


def find_images(work: Work, excluded: int, partition: int) -> None:
    """Write the images that an excluded recipe shows of one partition."""
    chosen = select(selection_limits(work, excluded), index(work, partition, main=False), itemise=False)
    table = pa.table({"identity": pa.array(chosen.identities, pa.uint64())})
    store.write_arrow(work.quota(f"images-{excluded}-{partition:05d}.arrow"), table)


def _find_repeats(work: Work, excluded: int | None) -> None:
    """Write (input, row) of records whose owner's id is met again with an image of another partition.

    Without an owner's id a record's key holds its image, so that twins share a partition. Owners' ids are few
    enough to be compared at once; the record that stays is chosen as within a partition.
    """
    twins: list[tuple[int, int]] = []
    if work.plan.partitions > 1:
        for pool in sorted({given.pool for given in work.plan.inputs}):
            twins += _twins(work, pool, excluded)
    store.write(work.quota(f"{_name(excluded)}.twins"), msgspec.json.encode(twins))


def _twins(work: Work, pool: str, excluded: int | None) -> list[tuple[int, int]]:
    parts = []
    for number, given in enumerate(work.plan.inputs):
        if given.pool != pool or (excluded is None and not given.keep) or not work.prepared(number).read_record().owned:
            continue
        table = store.read_arrow(work.prepared(number).index).filter(pc.field("owned"))
        table = table.select(["record", "unanswered", "variant", "row", "identity"])
        parts.append(table.append_column("input", pa.array(np.full(len(table), number, np.int32))))
    if not parts:
        return []
    whole = pa.concat_tables(parts)
    columns = {name: whole[name].to_numpy() for name in whole.column_names}
    files = sorted(range(len(work.plan.inputs)), key=lambda number: work.plan.inputs[number].job.rows.name)
    rank = np.argsort(np.asarray(files))[columns["input"]]
    order = np.lexsort((columns["row"], rank, columns["variant"], columns["unanswered"], columns["record"]))
    repeated = order[1:][columns["record"][order[1:]] == columns["record"][order[:-1]]]
    inputs, rows = columns["input"][repeated].tolist(), columns["row"][repeated].tolist()
    return [(given, row + offset(work, given).row) for given, row in zip(inputs, rows, strict=True)]


def decide(work: Work, partition: int) -> None:
    """Write the picks, the drops and, last, the counts of a partition, unless they are there."""
    done = work.part(partition, "json")
    if done.is_file():
        return
    chosen = select(selection_limits(work), index(work, partition, main=True))
    store.write_arrow(work.part(partition, "picks"), chosen.picks)
    store.write_arrow(work.part(partition, "drops"), chosen.drops)
    store.write(done, msgspec.json.encode(list(chosen.counts.values())))


def decided_counts(work: Work, partition: int) -> list[TakeCounts]:
    """What a decided partition read, dropped and kept of each take."""
    return msgspec.json.decode(work.part(partition, "json").read_bytes(), type=list[TakeCounts])
