"""What the test Hub stores: repositories with commits, references and discussions, and large files by sha256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from helpers.hub.answers import Refused

ATTRIBUTES = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in ("parquet", "arrow", "zip", "png", "jpg", "webp")
).encode()
_START = datetime(2026, 1, 1, tzinfo=UTC)
Kind = Literal["dataset", "model"]


def git_id(data: bytes) -> str:
    """The name that git gives to a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One file of a commit: its bytes, or the sha256 of those in the store of large files."""

    size: int
    data: bytes | None = None
    sha256: str | None = None

    @property
    def pointer(self) -> bytes:
        """What git keeps for it."""
        if self.data is not None:
            return self.data
        return f"version 1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def oid(self) -> str:
        """Git's name for it."""
        return git_id(self.pointer)

    @property
    def etag(self) -> str:
        """What the Hub calls it: the sha256 of a large file, git's name of another."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """All files at one moment; commits are never changed, so every revision stays readable."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, Blob]

    def folders(self) -> dict[str, str]:
        """Every folder with an id."""
        found: dict[str, str] = {}
        for path in sorted(self.files):
            parts = path.split("/")[:-1]
            for count in range(1, len(parts) + 1):
                folder = "/".join(parts[:count])
                found.setdefault(folder, hashlib.sha1(f"{self.oid} {folder}".encode()).hexdigest())
        return found


@dataclass
class Discussion:
    """A discussion, or a pull request whose reference is `refs/pr/NUMBER`."""

    num: int
    title: str
    author: str
    description: str
    is_pull_request: bool
    status: Literal["open", "closed", "merged", "draft"]
    date: str
    base: str | None = None
    merged_as: str | None = None

    @property
    def ref(self) -> str:
        """Where its commits are."""
        return f"refs/pr/{self.num}"


@dataclass
class Repository:
    """One repository.

    refs      commits by full names: `refs/heads/main`, `refs/tags/v1`, `refs/pr/1`
    objects   the large files that have arrived, by sha256; those in no commit too
    parts     of large files that have not arrived whole
    """

    name: str
    kind: Kind
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    members: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Who owns it."""
        return self.name.partition("/")[0]

    def ref(self, revision: str) -> str | None:
        """The full name of a reference, None where there is none of that name."""
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((name for name in names if name in self.refs), None)

    def at(self, revision: str) -> Commit:
        """The commit that a revision means; Refused where there is none."""
        ref = self.ref(revision)
        found = self.commits.get(self.refs[ref] if ref else revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits that lead to a revision, the newest first."""
        found = [self.at(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self.commits[parent])
        return found

    def now(self) -> str:
        """A date that is later at each commit, the same in each run."""
        moment = _START + timedelta(seconds=len(self.commits))
        return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def commit(
        self,
        ref: str,
        files: Mapping[str, Blob],
        title: str,
        message: str = "",
        author: str = "me",
        parent: str | None = None,
    ) -> Commit:
        """Put a commit with exactly these files on a reference, in one step.

        parent   where the reference does not exist yet
        """
        parent = self.refs.get(ref, parent)
        listed = "\n".join(f"{path} {blob.etag}" for path, blob in sorted(files.items()))
        about = f"{self.name} {parent} {len(self.commits)} {title}\n{listed}"
        oid = hashlib.sha1(about.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, message, author, self.now(), dict(files))
        self.refs[ref] = oid
        return self.commits[oid]

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        """Whether a file of this name goes to the store of large files."""
        blob = self.at("main").files.get(".gitattributes")
        lines = (blob.pointer if blob else b"").decode().splitlines()
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        name = path.rpartition("/")[2]
        return size > 10 << 20 or b"\0" in sample or any(fnmatchcase(name, pattern) for pattern in patterns)

    def bytes_of(self, blob: Blob) -> bytes:
        """The bytes of a file; Refused where the store has only its sha256."""
        if blob.data is not None:
            return blob.data
        found = self.objects.get(blob.sha256 or "")
        if found is None:
            raise Refused(404, f"no bytes of {blob.sha256} came to this server", "EntryNotFound")
        return found


class Hub:
    """All repositories.

    part_size   larger files come in parts of so many bytes; None: all come whole
    xet         a folder where clients keep large files by themselves; None: they send them to this server
    """

    def __init__(self, part_size: int | None = None, xet: Path | None = None) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.part_size, self.xet = part_size, xet
        self.xet_ids: dict[str, str] = {}

    def create(self, name: str, kind: Kind = "dataset", private: bool = False, author: str = "me") -> Repository:
        """A new repository; like the real Hub, it starts with a commit of `.gitattributes`."""
        if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name) or ".." in name or "--" in name:
            raise Refused(400, f"Invalid repo name: {name}")
        made = Repository(name, kind, private)
        blob = Blob(len(ATTRIBUTES), ATTRIBUTES)
        made.commit("refs/heads/main", {".gitattributes": blob}, "initial commit", author=author)
        self.repositories[kind, name] = made
        return made

    def repository(self, name: str, kind: Kind = "dataset") -> Repository:
        """A repository; Refused where there is none."""
        found = self.repositories.get((kind, name))
        if found is None:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return found
