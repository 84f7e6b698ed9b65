"""The pipeline on one screen: read every input, settle the quotas, write every shard, seal the corpus.

Work in progress lives under OUT/.work and is continued by a rerun; an input, a partition or a shard is either done
(its record is there) or started again. The manifest is written last: until then OUT is not a corpus.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.errors import OutputError, RawError, UsageError
from vpt_data.pipeline import output_folder, quotas, reading, sealing, writing
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.pipeline.engines.task import Engine, Task, undone
from vpt_data.pipeline.plan import Plan
from vpt_data.pipeline.workspace import RunId, Work, make_folders
from vpt_data.store import AnyPath

#: The modules whose functions are tasks, for `start_engine`.
TASK_MODULES = (reading.__name__, quotas.__name__, writing.__name__)
#: This process alone.
_HERE = functools.partial(start_engine, "local", 1)


@dataclass(frozen=True, slots=True)
class Result:
    """A finished build, and what `--strict` finds wrong with it."""

    manifest: manifest.Manifest
    findings: list[str]
    already: bool = False


def build(
    planned: Plan,
    out: AnyPath,
    engine: Callable[[], AbstractContextManager[Engine]] = _HERE,
    strict: bool = False,
    fresh: bool = False,
    together: bool = False,
) -> Result | None:
    """Build the corpus of a plan in `out`, or continue or confirm one that is there.

    engine    starts what runs the tasks (this process alone); it is not started where nothing is to be done
    together  others work in the folder too: this is one of several ranks
    Gives None where the shards of this process are written and others, or `seal`, have to finish the corpus. With
    `strict`, findings leave the shards where they are and no manifest; so does a corpus without a row.
    """
    with output_folder.held(out, together):
        if (done := output_folder.settle(planned, out, fresh, restart=not together)) is not None:
            return Result(done, sealing.findings(done, planned), already=True)
        work = open_work(planned, out)
        make_folders(work)
        with engine() as started:
            write_shards(planned, work, started)
            if not started.seals:
                return None
        return _finish(work, strict)


def retry(
    planned: Plan,
    out: AnyPath,
    engine: Callable[[], AbstractContextManager[Engine]] = _HERE,
    strict: bool = False,
) -> Result:
    """Try rows again that a finished corpus had to drop for their images; other shards stay as they are."""
    if planned.mode != "embed":
        raise UsageError("--retry-dropped is for corpora with --images embed; others drop no row for its image.")
    with output_folder.held(out):
        there = output_folder.settle(planned, out, fresh=False)
        work = open_work(planned, out)
        make_folders(work)
        with engine() as started:
            if there is not None:
                output_folder.stamp(planned, out)
                _adopt(planned, work, started, there)
                # From here on the folder is an unfinished build, which a plain rerun would finish as well.
                (out / manifest.NAME).unlink()
            write_shards(planned, work, started)
        return _finish(work, strict)


def _adopt(planned: Plan, work: Work, engine: Engine, there: manifest.Manifest) -> None:
    """Everything up to the shards, and those of them that need no retry."""
    prepare_all(planned, work, engine)
    output_folder.check_unchanged(planned, work.out)
    quotas.settle(work, engine)
    known = {
        shard.file.removeprefix("data/").removesuffix(".parquet"): shard
        for split in there.splits.values()
        for shard in split.shards
    }
    # What a block keeps shows in the records of its shards; that it has been compared, in a file of its own.
    tasks = [
        Task(writing.adopt, (block, known), work.shard(block.names[0], "compared")) for block in writing.blocks(work)
    ]
    engine.run_all(tasks, "comparing")


def seal(planned: Plan, out: AnyPath, strict: bool = False) -> Result:
    """Make a corpus of shards that ranks have written; OutputError where some are not there."""
    with output_folder.held(out):
        if (done := output_folder.settle(planned, out, fresh=False)) is not None:
            return Result(done, sealing.findings(done, planned), already=True)
        work = open_work(planned, out)
        tasks = _writing(work)
        if left := undone(tasks):
            raise OutputError(
                f"{out}: {len(left)} of {len(tasks)} blocks of shards are not written yet, the first is number "
                f"{tasks.index(left[0])}; run all ranks to their end (a rank that died can be run again), then --seal."
            )
        return _finish(work, strict)


def open_work(planned: Plan, out: AnyPath) -> Work:
    """What the tasks of a plan need to know."""
    return Work(planned, RunId(out, time.monotonic_ns()))


def write_shards(planned: Plan, work: Work, engine: Engine) -> None:
    """Everything up to the shards: pass 1 over every input, the quotas, pass 2 over every block of shards."""
    prepare_all(planned, work, engine)
    output_folder.check_unchanged(planned, work.out)
    quotas.settle(work, engine)
    engine.run_share(_writing(work), "writing")


def prepare_all(planned: Plan, work: Work, engine: Engine) -> None:
    """Pass 1 over every input, the largest first."""
    tasks = []
    for first, windows in planned.windowed().items():
        files = work.prepared(first)
        tasks.append(Task(reading.survey, (windows, files), files.survey))
    partitions = planned.partitions
    for number in sorted(range(len(planned.inputs)), key=lambda number: -planned.inputs[number].bytes):
        given, files = planned.inputs[number], work.prepared(number)
        settings = reading.ReadSettings(
            root=planned.root,
            seed=planned.recipe.seed,
            partitions=partitions,
            keep=given.keep,
            policy=planned.policy,
        )
        arguments = (given.job, files, settings, given.rows and given.bytes / given.rows)
        tasks.append(Task(reading.prepare, arguments, files.record, given.bytes, reports=True))
    engine.run_all(tasks, "reading")
    _check_tokenizers(planned, work)


def _check_tokenizers(planned: Plan, work: Work) -> None:
    """Depth codes of two tokenizers are two languages in the same words: no corpus holds both."""
    found: dict[str, str] = {}
    for number, given in enumerate(planned.inputs):
        for name in work.prepared(number).read_record().tokenizers if given.keep else ():
            found.setdefault(name, given.job.rows.name)
    if len(found) > 1:
        (one, file), (other, other_file), *_ = found.items()
        raise RawError(
            f"{other_file}: its depth codes are of the tokenizer {other!r}, those of {file} of {one!r}, and equal "
            "tokens of two tokenizers mean different things; make one of the files again with the other's tokenizer."
        )


def _writing(work: Work) -> list[Task]:
    """Pass 2, block by block; the last shard of a block is the last to be written."""
    return [Task(writing.make_block, (block,), block.record(block.names[-1])) for block in writing.blocks(work)]


def _finish(work: Work, strict: bool) -> Result:
    made = sealing.seal(work)
    result = Result(made, sealing.findings(made, work.plan))
    if any(split.rows for split in made.splits.values()) and not (strict and result.findings):
        for folder_of in (work.out, work.out / "data"):  # what was left where a process was killed
            for left in folder_of.glob("*.tmp"):
                left.unlink()
        manifest.write(made, work.out)
        store.remove_tree(work.folder)
    return result
