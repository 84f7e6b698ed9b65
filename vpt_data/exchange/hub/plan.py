"""What a push would do: the difference between what a repository shall hold and what it holds, or why it may not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from vpt_data.corpus.manifest import Manifest
from vpt_data.errors import HubError
from vpt_data.exchange.hub import redistribution
from vpt_data.exchange.hub.content import Content, Entry
from vpt_data.exchange.hub.layout import ATTRIBUTES, CARD, name_of
from vpt_data.exchange.hub.remote import Remote, RemoteFile, Repository, Tree

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks of a push.

    tag        None: the next v<n> on the branch main, where the corpora are others than in the newest
    force      write into a repository with files of others, and take configs of an earlier push away
    allowed    sets whose images may become public, whatever their terms say
    """

    private: bool = False
    revision: str = MAIN
    tag: str | None = None
    create_pr: bool = False
    message: str | None = None
    force: bool = False
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to happen to the files of a commit. `copy`: path -> another of the commit that has the same bytes."""

    upload: list[Entry]
    copy: dict[str, str]
    delete: list[str]
    unchanged: list[str]

    @property
    def empty(self) -> bool:
        """Whether the commit holds everything already."""
        return not (self.upload or self.copy or self.delete)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a push would do.

    remote         None where the repository has to be made
    tree           what is there now: of a new branch what main holds
    tag            None where none is set; `tagged`: it is there already
    pull_request   number and commit of an open one that proposes the same already
    """

    public: bool
    remote: Remote | None
    tree: Tree
    difference: Difference
    tag: str | None
    tagged: bool
    pull_request: tuple[int, str] | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        there = self.remote is not None and (self.difference.empty or self.pull_request is not None)
        return there and (self.tag is None or self.tagged)


def make(repository: Repository, content: Content, wishes: Wishes, author: str | None = None) -> Plan:
    """The plan of a push; HubError or CorpusError where it is refused.

    Refusals come before the first look at `content.files`, which draws the cards.

    author   the account whose open pull requests are looked at, with `create_pr`
    """
    remote = repository.find(wishes.revision)
    public = not (wishes.private if remote is None else remote.private)
    if remote is not None and public and wishes.private:
        raise HubError(
            f"{repository.name}: the repository is public, and a push does not change that; make it private in its "
            "settings first, or push without --private."
        )
    if public:
        redistribution.check_public(_manifests(content), wishes.allowed)
    tree = repository.tree(remote.head or remote.main) if remote else Tree("")
    _check_foreign(repository.name, tree, wishes.force)
    _check_configs(repository.name, tree, content, wishes.force)
    needed = difference(content, tree)
    proposed = _proposed(repository, content, author) if wishes.create_pr and author and remote else None
    tag, tagged = _tag(repository, content, wishes, remote)
    return Plan(public, remote, tree, needed, tag, tagged, proposed)


def difference(content: Content, tree: Tree) -> Difference:
    """What makes the files of a commit those of the content; files of others stay, unless readers would read them."""
    by_sha256 = {file.sha256: path for path, file in tree.files.items() if file.sha256}
    upload, copy, unchanged = [], {}, []
    for path, entry in content.files.items():
        there = tree.files.get(path)
        if there and _same(entry, there):
            unchanged.append(path)
        elif entry.sha256 in by_sha256:
            copy[path] = by_sha256[entry.sha256]
        else:
            upload.append(entry)
    patterns = [pattern for part in content.parts for pattern in part.data_files.values()]
    stale = {*tree.ours, *tree.read_by(patterns)} - content.files.keys() - {ATTRIBUTES}
    return Difference(upload, copy, sorted(stale), unchanged)


def _same(entry: Entry, there: RemoteFile) -> bool:
    if entry.size != there.size:
        return False
    return entry.sha256 == there.sha256 if there.sha256 else entry.git_id() == there.git_id


def _manifests(content: Content) -> list[Manifest]:
    return [part.manifest for part in content.parts]


# What is refused --------------------------------------------------------------------------------------------


def _check_foreign(repo: str, tree: Tree, force: bool) -> None:
    if tree.foreign and not force:
        raise HubError(
            f"{repo}: the repository holds {_some(tree.foreign)}, which no push of vpt-data has put there; choose "
            "another repository, or give --force: files of the same name are replaced, others stay unless readers "
            "would take them for shards."
        )


def _check_configs(repo: str, tree: Tree, content: Content, force: bool) -> None:
    gone = {name_of(*there) for there in tree.manifests.items()} - {part.name for part in content.parts}
    if gone and not force:
        raise HubError(
            f"{repo}: the push would take away {_some(sorted(gone))}, which an earlier push has put there; push it "
            "together with the others, choose another repository, or give --force."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


# Tags and pull requests -------------------------------------------------------------------------------------


def _tag(repository: Repository, content: Content, wishes: Wishes, remote: Remote | None) -> tuple[str | None, bool]:
    """The tag to set, and whether it is set already: at a commit that holds the content, be it the newest or not."""
    tags = remote.tags if remote else {}
    if wishes.tag is not None:
        at = tags.get(wishes.tag)
        if at is not None and not difference(content, repository.tree(at)).empty:
            raise HubError(
                f"{repository.name}: the tag {wishes.tag} is at commit {at[:12]}, which holds something else, and "
                "a push never moves a tag; choose another --tag."
            )
        return wishes.tag, at is not None
    if wishes.create_pr or wishes.revision != MAIN:
        return None, False
    versions = remote.versions if remote else {}
    newest = max(versions, default=0)
    if newest and _identities(repository.tree(versions[newest]).manifests.values()) == _identities(_manifests(content)):
        return f"v{newest}", True
    return f"v{newest + 1}", False


def _identities(manifests: Iterable[Manifest]) -> set[tuple[str, str, str, str]]:
    return {(made.recipe.name, made.recipe.sha256, made.mode, made.fingerprint) for made in manifests}


def _proposed(repository: Repository, content: Content, author: str) -> tuple[int, str] | None:
    """An open pull request of this account after which the repository would hold the content."""
    for number, commit in repository.own_pull_requests(author).items():
        if difference(content, repository.tree(commit)).empty:
            return number, commit
    return None


# What people see of it --------------------------------------------------------------------------------------


def card_difference(repository: Repository, content: Content, plan: Plan) -> str:
    """How the cards change, as a unified diff; of a card that is new only its length."""
    texts = []
    for entry in plan.difference.upload:
        if entry.path.rpartition("/")[2] != CARD:
            continue
        assert isinstance(entry.source, bytes)
        new = entry.source.decode().splitlines()
        if entry.path not in plan.tree.files:
            texts.append(f"{entry.path} is new ({len(new):,} lines)")
            continue
        old = repository.read(entry.path, plan.tree.commit).decode(errors="replace").splitlines()
        texts += difflib.unified_diff(old, new, f"{entry.path} (now)", entry.path, lineterm="")
    return "\n".join(texts)
