"""The pipeline on one screen: plan, prepare every input, mix, write every shard, account for it all.

Work in progress lives under OUT/.work and is continued by a rerun; an input or a shard is either done (its record
is there) or begun anew. The manifest is written last, by rename: until then OUT is not a corpus.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import account, engine, folder, manifest, mix, plan, prepare
from vpt_data.assemble import BlockTask, ShardDone, make_block, read_arrow, write_arrow
from vpt_data.plan import Plan


@dataclass(frozen=True, slots=True)
class Result:
    """A finished build, and what `--strict` finds wrong with it."""

    manifest: manifest.Manifest
    findings: list[str]
    already: bool = False


def build(planned: Plan, out: Path, workers: int = 1, strict: bool = False, fresh: bool = False) -> Result:
    """Build the corpus of a plan in `out`, or continue or confirm one that is there.

    With `strict`, findings leave the shards where they are and no manifest; so does a corpus without a row.
    """
    with folder.alone(out):
        if (done := folder.settle(planned, out, fresh)) is not None:
            return Result(done, account.findings(done, planned), already=True)
        return _build(planned, out, workers, strict)


def _build(planned: Plan, out: Path, workers: int, strict: bool) -> Result:
    work = out / ".work"
    for name in ("inputs", "picks", "shards"):
        (work / name).mkdir(parents=True, exist_ok=True)
    with engine.pool(workers) as pool:
        inputs = _prepare_all(planned, work, pool)
        selection = _select(planned, inputs)
        made = _shard_all(planned, selection, work, out, pool)
    accounted = account.account(planned, inputs, selection, made, out)
    result = Result(accounted, account.findings(accounted, planned))
    if any(split.rows for split in accounted.splits.values()) and not (strict and result.findings):
        manifest.write(accounted, out)
        shutil.rmtree(work)
    return result


def _prepare_all(planned: Plan, work: Path, pool: Executor | None) -> list[prepare.Prepared]:
    """Pass 1 over every input that is not done yet, the largest first."""
    settings = [
        prepare.Settings(planned.root, planned.recipe.seed, planned.partitions, it.keep) for it in planned.inputs
    ]
    targets = [prepare.Prepared(work / "inputs" / f"{number:05d}") for number in range(len(planned.inputs))]
    todo = [number for number, target in enumerate(targets) if not target.record.is_file()]
    todo.sort(key=lambda number: -planned.inputs[number].bytes)
    tasks: list[engine.Task] = [
        (prepare.survey, (windows, targets[first].survey))
        for first, windows in planned.windowed().items()
        if not targets[first].survey.is_file()
    ]
    tasks += [(prepare.prepare, (planned.inputs[n].job, targets[n], settings[n])) for n in todo]
    engine.run(pool, tasks, "reading")
    return targets


def _select(planned: Plan, prepared: list[prepare.Prepared]) -> mix.Selection:
    """The mix, after the images of the excluded recipe's rows are known."""
    inputs = [
        mix.Input(it.pool, it.job.source, it.job.dataset, it.job.rows.name, index, rejects)
        for it, (index, rejects) in zip(planned.inputs, _numbered(planned, prepared), strict=True)
    ]
    excluded = None
    if planned.excluded is not None:
        excluded = mix.images_of(planned.excluded, planned.excluded_pools, inputs)
    mine = [given if planned.inputs[n].keep else _empty(given) for n, given in enumerate(inputs)]
    return mix.select(planned.recipe, planned.pools, mine, excluded)


def _numbered(planned: Plan, prepared: list[prepare.Prepared]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Index and rejects of each input, with records and lines of a window counted from the start of its file."""
    lines: list[int] = []
    rows = 0
    for number, (it, at) in enumerate(zip(planned.inputs, prepared, strict=True)):
        tables = (read_arrow(at.index), read_arrow(at.rejects))
        if it.job.rows.window is None:
            yield tables
            continue
        if it.job.rows.window.start == 0:
            lines, rows = list(msgspec.json.decode(prepared[number].survey.read_bytes())["lines"]), 0
        yield _shifted(tables[0], rows, lines[0]), _shifted(tables[1], rows, lines.pop(0))
        rows += msgspec.json.decode(at.record.read_bytes())["records"]


def _shifted(table: pa.Table, rows: int, lines: int) -> pa.Table:
    for name, by in (("row", rows), ("line", lines)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.add(table[name], by))
    return table


def _empty(given: mix.Input) -> mix.Input:
    """An input of the excluded recipe, as the main recipe sees it."""
    return mix.Input(
        "",
        given.source,
        given.dataset,
        given.file,
        prepare.INDEX.empty_table(),
        prepare.REJECTS.empty_table(),
    )


def _shard_all(
    planned: Plan, selection: mix.Selection, work: Path, out: Path, pool: Executor | None
) -> dict[str, list[ShardDone]]:
    """Pass 2: every shard that is not done yet."""
    stems = []
    for number, picks in enumerate(selection.picks):
        write_arrow(work / "picks" / f"{number:05d}.arrow", picks)
        if len(picks):
            stems.append((number, planned.inputs[number].job.rows.name))
    by_split, run = plan.splits(planned.recipe), time.monotonic_ns()
    rules = tuple(plan.rules(planned.recipe))
    tasks = [
        BlockTask(work, out, split, first, plan.block_size(count), count, planned.partitions, tuple(by_split[split]),
                  tuple(stems), rules, planned.root, planned.mode == "embed", run)
        for split, count in planned.shards.items()
        for first in range(0, count, plan.block_size(count))
    ]  # fmt: skip
    blocks = engine.run(pool, [(make_block, (task,)) for task in tasks], "writing")
    made: dict[str, list[ShardDone]] = {}
    for task, done in zip(tasks, blocks, strict=True):
        made.setdefault(task.split, []).extend(done)
    return made
