"""The output folder: whose it is, what of it can be kept, and that only one build works in it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vpt_data import manifest
from vpt_data.errors import OutputError
from vpt_data.plan import Plan


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder for one build; the system lets go of it when the process ends, however it ends."""
    work = out / ".work"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: this is a file; give a folder for the corpus.")
    made = not out.exists()
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{out}: another build is at work in this folder; wait for it or give another."
            ) from error
        try:
            yield
        finally:
            _tidy(out, work, made)


def _tidy(out: Path, work: Path, made: bool) -> None:
    """Leave no trace of a build that never began."""
    if work.is_dir() and {path.name for path in work.iterdir()} <= {"lock"}:
        shutil.rmtree(work)
        if made:
            out.rmdir()


def settle(planned: Plan, out: Path, fresh: bool) -> manifest.Manifest | None:
    """Make `out` ready: the manifest of the very corpus asked for if it is there, else a folder to work in."""
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
        and there.recipe.exclude_sha256 == (planned.excluded.digest() if planned.excluded else None)
        and there.mode == planned.mode
        and there.limited == (planned.limit is not None)
        and there.tool == manifest.tool()
        and there.inputs == _inputs_now(planned)
    )
    return there if same else None


def _inputs_now(planned: Plan) -> list[manifest.InputRecord]:
    records = set()
    for raw_file in {file.path: file for given in planned.inputs for file in given.job.files.values()}.values():
        found = raw_file.survey([])
        records.add(manifest.InputRecord(found.file, found.bytes, found.sha256))
    return sorted(records)
