"""A source as a whole: what is there stays, what is missing is fetched, everything is checked and written down."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from vpt_data import store
from vpt_data.errors import OutputError, RawError, UsageError
from vpt_data.upstream.download import http, hub, sniff, unpack
from vpt_data.upstream.download.entries import PRIVATE, Group, Wanted
from vpt_data.upstream.download.http import Patience, Progress
from vpt_data.upstream.download.lockfile import Book, Checked, Recorded, accepted, has_accepted, today
from vpt_data.upstream.rawfile import HashingReader

#: to fetch, by hand: reported before anything is done; gone: recorded once, and no longer there.
State = Literal["to fetch", "by hand", "there", "elsewhere", "unpacked", "fetched", "same", "gone"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one file; `checked` says what its sha256 was compared with."""

    path: str
    state: State
    size: int | None = None
    sha256: str | None = None
    checked: Checked | None = None
    note: str = ""


def _quiet(_: str) -> None:
    """Say nothing."""


def _no_bar(_: str) -> Progress | None:
    return None


@dataclass(frozen=True, slots=True)
class Session:
    """A raw root, its lock file, and how to report: `say` a sentence, `bar` the progress of a file (bytes, of)."""

    root: Path
    book: Book
    patience: Patience = field(default_factory=Patience)
    private: frozenset[str] = frozenset()
    say: Callable[[str], None] = _quiet
    bar: Callable[[str], Progress | None] = _no_bar


def check_licences(root: Path, groups: list[Group]) -> None:
    """UsageError for the first source whose licence has not been accepted."""
    known = accepted(root)
    for group in groups:
        if not has_accepted(known, group):
            raise UsageError(
                f"{group.name} is under {group.license}, see {group.page}; read it, and say so with "
                f"--accept-license {group.name}."
            )


def plan(session: Session, group: Group) -> list[Outcome]:
    """What a download would do; nothing is fetched, hashed or written."""
    return [_planned(session, wanted) for wanted in group.files]


def _planned(session: Session, wanted: Wanted) -> Outcome:
    if (session.root / wanted.path).exists():
        return Outcome(wanted.path, "there", (session.root / wanted.path).stat().st_size)
    if (found := _elsewhere(session, wanted)) is not None:
        return found
    return Outcome(wanted.path, "by hand" if wanted.manual else "to fetch", wanted.size, wanted.sha256)


def download(session: Session, group: Group) -> list[Outcome]:
    """Have every file of a source under the raw root; call it when the licence is accepted, in `book.alone`.

    What has to be fetched by hand, and is not there yet, comes back as "by hand". Raises RawError for what owners
    and servers do, OutputError for the disk.
    """
    return [_have(session, wanted) for wanted in group.files]


def _have(session: Session, wanted: Wanted) -> Outcome:
    final = _place(session.root, wanted.path)
    if final.exists() or final.is_symlink():
        found = _examined(session, wanted, final)
        for note in (".part.json", ".part.json.tmp"):  # of a download that was killed at its end
            final.with_name(f"{final.name}{note}").unlink(missing_ok=True)
    elif (other := _elsewhere(session, wanted)) is not None:
        return other
    elif wanted.manual:
        return Outcome(wanted.path, "by hand", wanted.size, wanted.sha256, note=wanted.url)
    elif wanted.hub:
        found = _from_hub(session, wanted, final)
    else:
        found = _from_owner(session, wanted, final)
    if wanted.unpack:
        _unpacked(session, wanted, final)
    return found


def _place(root: Path, path: str) -> Path:
    """The file of that path, in a folder that is there and inside the raw root, whatever links are on the way."""
    place = root / path
    folder = place.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.resolve().is_relative_to(root.resolve()):
        raise OutputError(f"{place}: a link on the way leads out of the raw root; download writes nothing there.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place.parent}: cannot be made ({error.strerror}); a folder has to be there.") from error
    return place


def _elsewhere(session: Session, wanted: Wanted) -> Outcome | None:
    """Whether a build finds it without this file: in another place, or unpacked."""
    recorded = session.book.get(wanted.path)
    if recorded is not None and recorded.unpacked and all((session.root / name).exists() for name in recorded.unpacked):
        return Outcome(wanted.path, "unpacked", recorded.size, recorded.sha256, recorded.checked, recorded.unpacked[0])
    for other in wanted.others:
        if (session.root / other).exists():
            return Outcome(wanted.path, "elsewhere", note=other)
    return None


def _from_owner(session: Session, wanted: Wanted, final: Path) -> Outcome:
    part = final.with_name(f"{final.name}.part")
    got = http.fetch(
        wanted.url, part, wanted.path, wanted.size, wanted.sha256,
        patience=session.patience, private=session.private, progress=session.bar(wanted.path),
    )  # fmt: skip
    checked: Checked = "first use" if wanted.sha256 is None else "manifest"
    outcome = Outcome(wanted.path, "fetched", got.size, got.sha256, checked)
    _same_as_before(session, outcome, f"it is in {part.name} there")
    _settle(session, wanted, part, final, outcome, etag=got.etag)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)
    return outcome


def _from_hub(session: Session, wanted: Wanted, final: Path) -> Outcome:
    staging = session.root / PRIVATE / "hub" / wanted.hub.replace("/", "--")
    pinned = wanted.revision or session.book.revision(wanted.hub)
    got = hub.fetch(wanted, pinned or "main", staging)
    if pinned is None:
        session.book.pin(wanted.hub, got.revision)
        session.say(f"{wanted.hub}: pinned to commit {got.revision}, the newest one at first use.")
    checked: Checked = "manifest" if wanted.sha256 else "hub" if got.proved else "first use"
    outcome = Outcome(wanted.path, "fetched", got.size, got.sha256, checked)
    _same_as_before(session, outcome, f"it is under {staging}")
    _settle(session, wanted, got.file, final, outcome, etag=got.etag, revision=got.revision)
    shutil.rmtree(staging, ignore_errors=True)
    return outcome


def _same_as_before(session: Session, outcome: Outcome, where: str) -> None:
    recorded = session.book.get(outcome.path)
    if recorded is not None and recorded.sha256 != outcome.sha256:
        raise RawError(
            f"{outcome.path}: is another file (sha256 {outcome.sha256}) than the one recorded on {recorded.date} "
            f"({recorded.sha256}); {where}, and to accept it remove the entry from {PRIVATE}/downloads.json."
        )


def _settle(
    session: Session, wanted: Wanted, source: Path, final: Path, outcome: Outcome,
    etag: str | None = None, revision: str | None = None,
) -> None:  # fmt: skip
    """Give a complete and checked file its name, and write it down."""
    source.replace(final)
    store.sync_folder(final.parent)
    _record(session, wanted, final, outcome, etag, revision)


def _record(
    session: Session, wanted: Wanted, final: Path, outcome: Outcome,
    etag: str | None = None, revision: str | None = None,
) -> None:  # fmt: skip
    assert outcome.size is not None and outcome.sha256 is not None and outcome.checked is not None
    before = session.book.get(wanted.path)
    unpacked = before.unpacked if before is not None and before.sha256 == outcome.sha256 else None
    session.book.put(
        wanted.path,
        Recorded(
            url=wanted.url, size=outcome.size, sha256=outcome.sha256, date=today(), checked=outcome.checked,
            mtime_ns=final.stat().st_mtime_ns, etag=etag, revision=revision, unpacked=unpacked,
        ),
    )  # fmt: skip
    if outcome.checked == "first use":
        session.say(
            f"{wanted.path}: sha256 {outcome.sha256} recorded on first use, not checked against a published checksum."
        )


def _examined(session: Session, wanted: Wanted, final: Path) -> Outcome:
    """A file that is there: known and untouched, or else hashed and compared with all that is known."""
    if not final.is_file():
        raise RawError(f"{final}: this is no file; move it away and run the same command again.")
    recorded, stat = session.book.get(wanted.path), final.stat()
    untouched = recorded is not None and (recorded.size, recorded.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    if recorded is not None and untouched and wanted.sha256 in {None, recorded.sha256}:
        return Outcome(wanted.path, "there", recorded.size, recorded.sha256, recorded.checked)
    outcome = _compared(session, wanted, final, recorded)
    if recorded is None:
        _record(session, wanted, final, outcome)
    else:
        session.book.put(wanted.path, msgspec.structs.replace(recorded, mtime_ns=stat.st_mtime_ns))
    return outcome


def _compared(session: Session, wanted: Wanted, final: Path, recorded: Recorded | None) -> Outcome:
    """Hash a file; RawError where it is not what the manifest or the lock file says."""
    size = final.stat().st_size
    advice = "move it away and run the same command again"
    if wanted.size is not None and size != wanted.size:
        raise RawError(f"{final}: has {size:,} bytes, the manifest says {wanted.size:,}; {advice}.")
    if (odd := sniff.wrong(final, wanted.path)) is not None:
        raise RawError(f"{final}: is {odd} instead of the file; {advice}.")
    sha256 = _sha256(final, session.bar(wanted.path))
    if wanted.sha256 not in {None, sha256}:
        raise RawError(f"{final}: has sha256 {sha256}, the manifest says {wanted.sha256}; {advice}.")
    if recorded is not None and recorded.sha256 != sha256:
        raise RawError(f"{final}: has sha256 {sha256}, on {recorded.date} it had {recorded.sha256}; {advice}.")
    checked: Checked = "manifest" if wanted.sha256 else recorded.checked if recorded else "first use"
    return Outcome(wanted.path, "there", size, sha256, checked)


def _sha256(path: Path, progress: Progress | None) -> str:
    with HashingReader(path) as file:
        while file.read(1 << 20):
            if progress is not None:
                progress(file.size, path.stat().st_size)
        return file.finish()


def _unpacked(session: Session, wanted: Wanted, final: Path) -> None:
    """Unpack an archive once; what it becomes is written down before it is moved, so that a kill leaves no doubt."""
    recorded = session.book.get(wanted.path)
    assert recorded is not None  # every file that is there has been recorded
    if recorded.unpacked and all((session.root / name).exists() for name in recorded.unpacked):
        return
    folder = _place(session.root, f"{wanted.unpack}/x").parent
    scratch = session.root / PRIVATE / "unpack"
    names = unpack.unpack(final, scratch, wanted.path)
    ours = [] if recorded.unpacked is None else [name.removeprefix(f"{wanted.unpack}/") for name in recorded.unpacked]
    unpack.check_free(folder, names, ours, wanted.path)
    paths = [f"{wanted.unpack}/{name}" for name in names]
    session.book.put(wanted.path, msgspec.structs.replace(recorded, unpacked=paths))
    unpack.place(scratch, folder, names)
    session.say(f"{wanted.path}: unpacked to {', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}.")


def verify(session: Session, group: Group) -> list[Outcome]:
    """Hash what is there of a source and compare it with manifest and lock file; nothing is fetched or written.

    Raises RawError for the first difference. Files never fetched are "to fetch" or "by hand", lost ones "gone".
    """
    return [_verified(session, wanted) for wanted in group.files]


def _verified(session: Session, wanted: Wanted) -> Outcome:
    final, recorded = session.root / wanted.path, session.book.get(wanted.path)
    if final.is_file():
        found = _compared(session, wanted, final, recorded)
        return Outcome(
            found.path, "same" if recorded or wanted.sha256 else "there", found.size, found.sha256, found.checked
        )
    planned = _planned(session, wanted)
    if planned.state in {"to fetch", "by hand"} and recorded is not None:
        return Outcome(wanted.path, "gone", recorded.size, recorded.sha256, recorded.checked)
    return planned
