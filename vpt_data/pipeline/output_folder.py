"""The output folder: whose it is, what of it can be kept, and that only one build works in it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.errors import OutputError, RawError
from vpt_data.images import identity
from vpt_data.pipeline.plan import Plan
from vpt_data.store import AnyPath, RemotePath


@contextmanager
def held(out: AnyPath, together: bool = False) -> Iterator[None]:
    """Hold the folder for one build, or for the ranks of one; the system lets go of it however a process ends.

    An object store knows no locks: there it is up to the user that one build works in a place.
    """
    if out.is_file():
        raise OutputError(f"{out}: this is a file; give a folder for the corpus.")
    if isinstance(out, RemotePath):
        yield
        return
    work = out / ".work"
    made = not out.exists()
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
        store.remove_tree(work)
        if made:
            with suppress(OSError):  # another rank has begun
                out.rmdir()


#: What a plan is made of (keys of its stamp), as an error names it.
_PARTS = {
    "tool": "version of vpt-data", "recipe": "recipe", "exclude": "recipe of evaluation rows", "mode": "--images",
    "limit": "--limit", "verify": "--verify-images", "policy": "--license-policy", "root": "--raw",
    "follow": "--follow-links", "files": "input files",
}  # fmt: skip


def settle(planned: Plan, out: AnyPath, fresh: bool, restart: bool = False) -> manifest.Manifest | None:
    """Make `out` ready: the manifest of the very corpus asked for if it is there, else a folder to work in.

    fresh    replace whatever another plan has made there
    restart  replace what another plan has started, as long as no shard of it is finished
    """
    work, ours = out / ".work", planned.stamp()
    stamp_file = work / "plan.json"
    known = (out / manifest.NAME).is_file() or stamp_file.is_file()
    if out.is_dir() and not known and any(path.name != ".work" for path in out.iterdir()):
        raise OutputError(f"{out}: the folder holds other files; give an empty or new folder for the corpus.")
    if fresh:
        _clear(out, stamp_file)
    if (out / manifest.NAME).is_file():
        done = _same_corpus(planned, out)
        store.remove_tree(work)  # left where a build was killed at its very end
        return done
    if not fresh and stamp_file.is_file() and stamp_file.read_bytes() != ours:
        if not restart or any(name.endswith(".json") for name in store.names(work / "shards")):
            _refuse(out, stamp_file.read_bytes(), ours)
        _clear(out, stamp_file)
    store.write(stamp_file, ours, durable=True)
    return None


def stamp(planned: Plan, out: AnyPath) -> None:
    """Mark the work folder as one of this plan."""
    store.write(out / ".work" / "plan.json", planned.stamp(), durable=True)


def check_unchanged(planned: Plan, out: AnyPath) -> None:
    """RawError where an input file is no longer what it was when the build began; to be called when all are read."""
    before = msgspec.json.decode((out / ".work" / "plan.json").read_bytes(), type=dict)["files"]
    try:
        now = msgspec.json.decode(planned.stamp(), type=dict)["files"]
    except FileNotFoundError as error:
        raise RawError(
            f"{error.filename}: was removed while the build read it; put it back and run the same command again."
        ) from error
    for (name, *known), (_, *found) in zip(before, now, strict=False):
        if found != known:
            raise RawError(
                f"{planned.root / name}: was changed while the build read it ({known[0]:,} bytes, now {found[0]:,}); "
                "nothing that was read is used, run the same command again once the file stays as it is."
            )


def _refuse(out: AnyPath, there: bytes, ours: bytes) -> None:
    """Say in what a build that was begun differs from ours."""
    differs: list[str] = []
    with suppress(msgspec.DecodeError):
        old, new = msgspec.json.decode(there, type=dict), msgspec.json.decode(ours, type=dict)
        differs = [words for key, words in _PARTS.items() if old.get(key) != new[key]]
        if not differs and old:
            raise OutputError(
                f"{out}: the build was begun with pyarrow {old['pyarrow']}, this is {new['pyarrow']}, and their bytes "
                "differ; install that version, or use --fresh to start over."
            )
    raise OutputError(
        f"{out}: holds an unfinished build with other {_listed(differs)}; give the same again to continue, or "
        "use --fresh to start over."
    )


def _listed(parts: list[str]) -> str:
    return ", ".join(parts) or "contents"


def _clear(out: AnyPath, stamp_file: AnyPath) -> None:
    """Remove what a build wrote, and nothing else.

    Until all of it is removed there is a stamp that fits no plan: killed half-way, the folder is still known as
    ours, and nothing old is taken for a part of the new build.
    """
    store.write(stamp_file, b"{}", durable=True)
    for name in (manifest.NAME, "README.md", "dropped.parquet", "origins.parquet"):
        (out / name).unlink(missing_ok=True)
    for shard in (out / "data").glob("*.parquet*"):
        shard.unlink()
    for folder in ("inputs", "quotas", "parts", "shards"):
        store.remove_tree(stamp_file.parent / folder)


def _same_corpus(planned: Plan, out: AnyPath) -> manifest.Manifest:
    """The manifest of a corpus that is the very one asked for and all there; else an OutputError."""
    there = manifest.read(out)
    same = {
        "recipe": there.recipe.sha256 == planned.recipe.digest(),
        "exclude": there.recipe.exclude_sha256 == planned.exclude_sha256,
        "mode": there.mode == planned.mode,
        "limit": there.limited == (planned.limit is not None),
        "policy": there.license_policy == planned.policy,
        "verify": there.verify_images == planned.verify,
        "tool": there.tool == manifest.tool(),
    }
    differs = [words for key, words in _PARTS.items() if not same.get(key, True)]
    if not differs and there.inputs != _inputs_now(planned):
        differs = [_PARTS["files"]]
    if differs:
        raise OutputError(f"{out}: holds a corpus with other {_listed(differs)}; use --fresh to replace it.")
    for shard in (shard for split in there.splits.values() for shard in split.shards):
        if not (out / shard.file).is_file() or (out / shard.file).stat().st_size != shard.bytes:
            raise OutputError(
                f"{out}: {shard.file} is gone or not as the manifest says; use --fresh to build the corpus again."
            )
    return there


def _inputs_now(planned: Plan) -> list[manifest.InputRecord]:
    records = set()
    files = {file.path: file for given in planned.inputs for file in given.job.files.values()}
    if (genome := identity.image_data(planned.root)) is not None:
        files[genome.path] = genome
    for raw_file in files.values():
        found = raw_file.survey([])
        records.add(manifest.InputRecord(found.file, found.bytes, found.sha256))
    return sorted(records)
