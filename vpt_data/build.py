"""The pipeline on one screen: plan, prepare every input, mix, write every shard, account for it all.

Work in progress lives under OUT/.work and is continued by a rerun; an input or a shard is either done (its record
is there) or begun anew. The manifest is written last, by rename: until then OUT is not a corpus.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from vpt_data import __version__, manifest, mix, plan, prepare, shards
from vpt_data.assemble import BlockTask, ShardDone, make_block, read_arrow, write_arrow
from vpt_data.card import render_card
from vpt_data.errors import OutputError, VptDataError
from vpt_data.plan import Plan
from vpt_data.schema import DROP, ORIGIN, SCHEMA_VERSION, Reason

#: Drops that a recipe asks for; all others say that something is wrong with the raw data.
PLANNED = frozenset({Reason.NOT_SELECTED, Reason.CLAIMED, Reason.EVAL_IMAGE, Reason.DUPLICATE})


@dataclass(frozen=True, slots=True)
class Result:
    """A finished build, and what `--strict` finds wrong with it."""

    manifest: manifest.Manifest
    findings: list[str]
    already: bool = False


def build(planned: Plan, out: Path, workers: int = 1, strict: bool = False, fresh: bool = False) -> Result:
    """Build the corpus of a plan in `out`, or continue or confirm one that is there.

    With `strict`, findings leave the shards where they are and no manifest.
    """
    work = out / ".work"
    if (done := _settle(planned, out, fresh)) is not None:
        return Result(done, [], already=True)
    for folder in ("inputs", "picks", "shards"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    with _pool(workers) as pool:
        inputs = _prepare_all(planned, work, pool)
        selection = _select(planned, inputs)
        made = _shard_all(planned, selection, work, out, pool)
    result = _account(planned, inputs, selection, made, out)
    if strict and result.findings:
        return result
    manifest.write(result.manifest, out)
    shutil.rmtree(work)
    return result


def _settle(planned: Plan, out: Path, fresh: bool) -> manifest.Manifest | None:
    """Make `out` ready: the manifest of the very corpus asked for if it is there, else a folder to work in."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: this is a file; give a folder for the corpus.")
    work, stamp = out / ".work", planned.stamp()
    stamp_file = work / "plan.json"
    ours = (out / manifest.NAME).is_file() or stamp_file.is_file()
    if out.is_dir() and not ours and any(path.name != ".work" for path in out.iterdir()):
        raise OutputError(f"{out}: the folder holds other files; give an empty or new folder for the corpus.")
    if fresh:
        _clear(out, stamp_file)
    if (out / manifest.NAME).is_file():
        if (done := _same_corpus(planned, out)) is not None:
            shutil.rmtree(work, ignore_errors=True)  # left where a build was killed at its very end
            return done
        raise OutputError(f"{out}: holds a corpus from other inputs or another recipe; use --fresh to replace it.")
    if not fresh and stamp_file.is_file() and stamp_file.read_bytes() != stamp:
        raise OutputError(
            f"{out}: holds an unfinished build from other inputs or another recipe; use --fresh to start over."
        )
    work.mkdir(parents=True, exist_ok=True)
    manifest.write_text(stamp_file, stamp.decode())
    return None


def _clear(out: Path, stamp_file: Path) -> None:
    """Remove what a build wrote, and nothing else.

    Until all of it is gone a stamp that fits no plan lies there: killed half-way, the folder is still known as
    ours, and nothing old is taken for a part of the new build.
    """
    stamp_file.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(stamp_file, "{}")
    for name in (manifest.NAME, "README.md", "dropped.parquet", "origins.parquet"):
        (out / name).unlink(missing_ok=True)
    for shard in (out / "data").glob("*.parquet*"):
        shard.unlink()
    for folder in ("inputs", "picks", "shards"):
        shutil.rmtree(stamp_file.parent / folder, ignore_errors=True)


def _same_corpus(planned: Plan, out: Path) -> manifest.Manifest | None:
    there = manifest.read(out)
    same = (
        there.recipe.sha256 == planned.recipe.digest()
        and there.mode == planned.mode
        and there.limited == (planned.limit is not None)
        and there.tool == _tool()
        and there.inputs == _inputs_now(planned)
    )
    return there if same else None


def _inputs_now(planned: Plan) -> list[manifest.InputRecord]:
    records = set()
    for raw_file in {file.path: file for given in planned.inputs for file in given.job.files.values()}.values():
        found = raw_file.survey([])
        records.add(manifest.InputRecord(found.file, found.bytes, found.sha256))
    return sorted(records)


def _tool() -> manifest.Tool:
    return manifest.Tool("vpt-data", __version__, pa.__version__)


@contextmanager
def _pool(workers: int) -> Iterator[Executor | None]:
    """A process pool, or None to work in this process; an error or interrupt stops its workers at once."""
    if workers <= 1:
        yield None
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)
    try:
        yield pool
    except BaseException:
        for worker in set(active_children()) - others:
            worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def _follow_parent() -> None:
    """In a worker: end with the process that started it, so that no orphan writes on behind a rerun."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started here never see an interrupt, it is the parent's to handle; ours arrives at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(pool: Executor | None, tasks: Iterable[tuple[Callable[..., Any], tuple[Any, ...]]], label: str) -> list[Any]:
    """The results of all tasks in their order, with a progress bar on a terminal."""
    listed = list(tasks)
    results: list[Any] = [None] * len(listed)
    with tqdm(total=len(listed), desc=label, disable=None, unit="file") as bar:
        if pool is None:
            for number, (function, arguments) in enumerate(listed):
                results[number] = function(*arguments)
                bar.update()
            return results
        try:
            with _interrupts_later():
                futures = {pool.submit(call, *args): number for number, (call, args) in enumerate(listed)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise VptDataError(
                "A worker process was killed, perhaps because memory ran out; run the same command again to go "
                "on, with fewer --workers if memory is short."
            ) from error
    return results


def _prepare_all(planned: Plan, work: Path, pool: Executor | None) -> list[prepare.Prepared]:
    """Pass 1 over every input that is not done yet, the largest first."""
    settings = [
        prepare.Settings(planned.root, planned.recipe.seed, planned.partitions, it.keep) for it in planned.inputs
    ]
    targets = [prepare.Prepared(work / "inputs" / f"{number:05d}") for number in range(len(planned.inputs))]
    todo = [number for number, target in enumerate(targets) if not target.record.is_file()]
    todo.sort(key=lambda number: -planned.inputs[number].bytes)
    tasks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (prepare.prepare, (planned.inputs[n].job, targets[n], settings[n])) for n in todo
    ]
    for first, windows in planned.windowed().items():
        if not targets[first].survey.is_file():
            tasks.append((prepare.survey, (windows, targets[first].survey)))
    _run(pool, tasks, "reading")
    return targets


def _select(planned: Plan, prepared: list[prepare.Prepared]) -> mix.Selection:
    """The mix, after the images of the excluded recipe's rows are known."""
    inputs = [
        mix.Input(it.pool, it.job.source, it.job.dataset, it.job.rows.name, index, rejects)
        for it, (index, rejects) in zip(planned.inputs, _numbered(planned, prepared), strict=True)
    ]
    excluded = None
    if planned.excluded is not None:
        excluded = mix.select(planned.excluded, planned.excluded_pools, inputs).identities
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
    blocks = _run(pool, [(make_block, (task,)) for task in tasks], "writing")
    made: dict[str, list[ShardDone]] = {}
    for task, done in zip(tasks, blocks, strict=True):
        made.setdefault(task.split, []).extend(done)
    return made


def _account(
    planned: Plan,
    prepared: list[prepare.Prepared],
    selection: mix.Selection,
    made: dict[str, list[ShardDone]],
    out: Path,
) -> Result:
    """Drops, origins, card, and the manifest (not written yet)."""
    everything = [shard for shards_of in made.values() for shard in shards_of]
    components = {component.take: component for component in selection.components}
    late = [DROP.empty_table()]
    for shard in everything:
        late.append(shard.drops())
        for take, reason in zip(shard.dropped_takes, shard.dropped_reasons, strict=True):
            components[take].kept -= 1
            components[take].dropped[reason] += 1
        for take, kinds in shard.repaired.items():
            components[take].repaired.update(kinds)
    sides = [shard.side(out / ".work") for shard in everything]
    _write_parquet(out / "dropped.parquet", pa.concat_tables([selection.drops, *late]))
    _write_parquet(
        out / "origins.parquet",
        pa.concat_tables([ORIGIN.empty_table(), *(s.select(ORIGIN.names) for s in sides)]),
    )
    made_of = manifest.Manifest(
        schema_version=SCHEMA_VERSION,
        tool=_tool(),
        recipe=manifest.RecipeRecord(planned.recipe.name, planned.recipe.digest(), msgspec.to_builtins(planned.recipe)),
        inputs=_input_records(prepared),
        mode=planned.mode,
        limited=planned.limit is not None,
        components=[_component(component) for component in components.values()],
        splits={split: _split(shards_of) for split, shards_of in made.items()},
        images=_images(sides, everything),
        fingerprint=shards.fingerprint(*_pairs(sides)),
        missing=[f"{take}: {gap.places[0]}" for take, gaps in planned.missing.items() for gap in gaps],
        not_checked=planned.not_checked,
    )
    manifest.write_text(out / "README.md", render_card(made_of, planned.recipe))
    return Result(made_of, _findings(made_of, planned))


def _pairs(sides: list[pa.Table]) -> tuple[list[pa.Array], list[pa.Array]]:
    ids = [chunk for side in sides for chunk in side["id"].chunks]
    return ids, [chunk for side in sides for chunk in side["hash"].chunks]


def _images(sides: list[pa.Table], made: list[ShardDone]) -> manifest.ImagesRecord:
    identities = [side.filter(side["imaged"])["identity"].to_numpy() for side in sides]
    distinct = len(np.unique(np.concatenate([np.zeros(0, np.uint64), *identities])))
    return manifest.ImagesRecord(distinct, sum(shard.embedded for shard in made), sum(shard.missing for shard in made))


def _input_records(prepared: list[prepare.Prepared]) -> list[manifest.InputRecord]:
    records: set[manifest.InputRecord] = set()
    for given in prepared:
        record = msgspec.json.decode(given.record.read_bytes())
        files = record["files"]
        if given.survey.is_file():
            files.append(msgspec.json.decode(given.survey.read_bytes()))
        records.update(manifest.InputRecord(raw["file"], raw["bytes"], raw["sha256"]) for raw in files)
    return sorted(records)


def _component(component: mix.Component) -> manifest.ComponentRecord:
    fields = {name: getattr(component, name) for name in manifest.ComponentRecord.__struct_fields__}
    fields["repaired"] = dict(sorted(component.repaired.items()))
    fields["dropped"] = {reason: n for reason, n in sorted(component.dropped.items()) if n}
    return manifest.ComponentRecord(**fields)


def _split(made: list[ShardDone]) -> manifest.SplitRecord:
    records = [manifest.ShardRecord(shard.file, shard.rows, shard.bytes, shard.sha256) for shard in made]
    return manifest.SplitRecord(sum(shard.rows for shard in made), records)


def _write_parquet(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    pq.write_table(table.combine_chunks(), temporary, compression="zstd")
    temporary.replace(path)


def _findings(made: manifest.Manifest, planned: Plan) -> list[str]:
    """What `--strict` objects to, one sentence each."""
    found = [f"take {entry}: its file is not under the raw root" for entry in made.missing]
    for component in made.components:
        wrong = Counter({reason: n for reason, n in component.dropped.items() if Reason(reason) not in PLANNED})
        if wrong and wrong.total() > planned.recipe.tolerance * component.read:
            reasons = ", ".join(f"{reason} {n}" for reason, n in wrong.most_common())
            share = wrong.total() / component.read
            found.append(
                f"take {component.take}: {share:.2%} of {component.read} records were dropped ({reasons}), "
                f"the recipe tolerates {planned.recipe.tolerance:.2%}"
            )
    return found


def empty_splits(made: manifest.Manifest) -> bool:
    """Whether nothing at all got into the corpus."""
    return pc.sum(pa.array([split.rows for split in made.splits.values()], pa.int64())).as_py() in {0, None}
