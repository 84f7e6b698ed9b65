"""Carry out a push so that readers see the old version or the new one, at every moment.

Large files go to the Hub's store first, where nobody sees them; then one commit, whose parent is the commit that was
looked at, changes all files at once; then comes the tag. Whatever breaks on the way, the next attempt begins with a
look at what is there: an upload that has arrived is not repeated, and a commit that was made is not made twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vpt_data.errors import CorpusError, HubError
from vpt_data.exchange.hub import plan as plans
from vpt_data.exchange.hub.answers import OutOfReach, Passing, asking
from vpt_data.exchange.hub.content import Content, Entry
from vpt_data.exchange.hub.plan import Plan, Wishes
from vpt_data.exchange.hub.remote import Repository

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

T = TypeVar("T")
#: Seconds between attempts that bring nothing forward.
_PAUSES = (1, 2, 5, 10, 20, 40, 60)
_LONGEST = 900
#: Files that go to the store together: so many, or so many bytes.
_FILES, _BYTES = 100, 1 << 30


@dataclass(frozen=True, slots=True)
class Patience:
    """How attempts are repeated: what is reported, and how to wait (VPT_DATA_HUB_PAUSE shortens that, for tests)."""

    say: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep

    def insist(self, attempt: Callable[[], T], progress: Callable[[], int] = int, first: bool = False) -> T:
        """What the attempt returns, repeated while it raises Passing; HubError after too many without progress.

        first   nothing has been heard of the Hub so far, so that an endpoint out of reach is no accident
        """
        failures, done = 0, progress()
        while True:
            try:
                return attempt()
            except Passing as error:
                if first and isinstance(error, OutOfReach):
                    raise HubError(f"{error}; check the network, and HF_ENDPOINT if it is set.") from error
                if progress() > done:
                    failures, done = 0, progress()
                if failures == len(_PAUSES) or error.after > _LONGEST:
                    raise HubError(f"{error}; run the same command again later to continue.") from error
                pause = max(error.after, _PAUSES[failures] * float(os.environ.get("VPT_DATA_HUB_PAUSE", "1")))
                self.say(f"{error}; trying again in {pause:g} s.")
                self.sleep(pause)
                failures += 1


@dataclass(frozen=True, slots=True)
class Result:
    """What a push has done.

    commit         the commit that holds the corpora now
    plan           what was done to get there: of a push that found everything there, nothing
    pull_request   its number, with `create_pr`
    """

    commit: str
    plan: Plan
    created: bool
    pull_request: int | None


@dataclass
class Push:
    """One push, over all attempts; `uploaded` has the files that are in the Hub's store."""

    repository: Repository
    content: Content
    wishes: Wishes
    author: str
    patience: Patience
    uploaded: dict[tuple[str, str], CommitOperationAdd] = field(default_factory=dict)
    created: bool = False
    committed: Plan | None = None

    def run(self) -> Result:
        """Carry it out; HubError or CorpusError where it cannot be, and whatever has arrived stays there."""
        return self.patience.insist(self._attempt, lambda: len(self.uploaded))

    def _attempt(self) -> Result:
        plan = self._planned()
        if plan.pull_request is not None:
            number, commit = plan.pull_request
        elif plan.difference.empty:
            number, commit = None, plan.tree.commit
        else:
            self._upload(plan.difference.upload)
            number, commit = self._commit(plan)
        if plan.tag is not None and not plan.tagged:
            with asking(self.repository.name):
                self.repository.api.create_tag(self.repository.name, tag=plan.tag, revision=commit, repo_type="dataset")
        # An attempt whose answer was lost has made the commit that this one finds.
        return Result(commit, self.committed or plan, self.created, number)

    def _planned(self) -> Plan:
        """The plan for a repository and a branch that are there, which are made if need be."""
        plan = self._plan()
        if plan.remote is None:
            self._create()
            plan = self._plan()
        if plan.remote is None:
            raise HubError(
                f"{self.repository.name}: the name is taken by a repository that this account does not see; choose "
                "another with --repo."
            )
        if plan.remote.head is None:
            with asking(self.repository.name):
                self.repository.api.create_branch(
                    self.repository.name, branch=self.wishes.revision, revision=plan.remote.main, repo_type="dataset",
                    exist_ok=True,
                )  # fmt: skip
            plan = self._plan()
        return plan

    def _plan(self) -> Plan:
        return plans.make(self.repository, self.content, self.wishes, self.author)

    def _create(self) -> None:
        from huggingface_hub import errors

        with asking(self.repository.name):
            try:
                self.repository.api.create_repo(self.repository.name, repo_type="dataset", private=self.wishes.private)
                self.created = True
            except errors.HfHubHTTPError as error:
                if error.response.status_code != 409:  # the name is taken, perhaps by an attempt of ours
                    raise

    def _upload(self, entries: list[Entry]) -> None:
        """Put the large ones of these files into the store, some at a time."""
        from huggingface_hub import CommitOperationAdd

        left = [entry for entry in entries if (entry.path, entry.sha256) not in self.uploaded]
        total, done = sum(entry.size for entry in left), 0
        for batch in _batches(left):
            with asking(self.repository.name):
                operations = [CommitOperationAdd(entry.path, entry.source) for entry in batch]
                self.repository.api.preupload_lfs_files(
                    self.repository.name, operations, repo_type="dataset", revision=self.wishes.revision,
                    create_pr=self.wishes.create_pr, free_memory=False,
                )  # fmt: skip
            for entry, operation in zip(batch, operations, strict=True):
                _check_bytes(entry, operation)
                self.uploaded[entry.path, entry.sha256] = operation
            done += sum(entry.size for entry in batch)
            self.patience.say(f"Uploaded {done:,} of {total:,} bytes.")

    def _commit(self, plan: Plan) -> tuple[int | None, str]:
        """One commit with all changes; the number of its pull request, if it is one, and its id."""
        from huggingface_hub import CommitOperationCopy, CommitOperationDelete

        needed, head = plan.difference, plan.tree.commit
        self.committed = plan
        with asking(self.repository.name):
            made = self.repository.api.create_commit(
                self.repository.name,
                [
                    *(self.uploaded[entry.path, entry.sha256] for entry in needed.upload),
                    *(CommitOperationCopy(source, path, src_revision=head) for path, source in needed.copy.items()),
                    *(CommitOperationDelete(path) for path in needed.delete),
                ],
                commit_message=self.wishes.message or _summary(self.content), repo_type="dataset",
                revision=self.wishes.revision, create_pr=self.wishes.create_pr, parent_commit=head,
            )  # fmt: skip
        left = plans.difference(self.content, self.repository.tree(made.oid))
        if not left.empty:
            wrong = [*(entry.path for entry in left.upload), *left.copy, *left.delete]
            raise HubError(
                f"{self.repository.name}: commit {made.oid[:12]} does not hold what was pushed, for instance "
                f"{wrong[0]}; remove a .gitignore that the repository may have, and push again."
            )
        return made.pr_num, made.oid


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        if batch and (len(batch) == _FILES or sum(one.size for one in batch) + entry.size > _BYTES):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


def _check_bytes(entry: Entry, operation: CommitOperationAdd) -> None:
    """Nothing becomes visible whose bytes are not those that `vpt-data check` has verified."""
    found = operation.upload_info.sha256.hex()
    if found != entry.sha256:
        where = entry.source if isinstance(entry.source, Path) else entry.path
        raise CorpusError(
            f"{where}: its bytes have the sha256 {found}, the manifest says {entry.sha256}; nothing was published, see "
            "`vpt-data check`, and build the corpus again."
        )


def _summary(content: Content) -> str:
    made = [part.manifest for part in content.parts]
    names = ", ".join(one.recipe.name for one in made)
    fingerprint = f", fingerprint {made[0].fingerprint[:12]}" if len(made) == 1 else ""
    return f"{names}: {content.rows:,} rows{fingerprint}"
