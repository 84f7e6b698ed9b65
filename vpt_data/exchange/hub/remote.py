"""What a repository on the Hub holds now, and which of it is not ours."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from vpt_data import __version__
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import Manifest
from vpt_data.corpus.reader import DROPPED, ORIGINS
from vpt_data.errors import HubError
from vpt_data.exchange.hub.answers import LOG_IN, asking
from vpt_data.exchange.hub.layout import ASSETS, ATTRIBUTES, CARD, CROISSANT
from vpt_data.store import DECODE_ERRORS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MANIFEST = re.compile(rf"(?P<folder>([^/]+/)?){re.escape(manifest.NAME)}")
_TOOL = "vpt-data"
_VERSION = re.compile(r"v([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the Hub lists it: git's name for it, and the sha256 where it is in the store of large files."""

    size: int
    git_id: str
    sha256: str | None


@dataclass(frozen=True)
class Tree:
    """The files of a repository at one commit, and the manifests among them by the folder that they describe."""

    commit: str
    files: dict[str, RemoteFile] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)

    @cached_property
    def ours(self) -> frozenset[str]:
        """The files that an earlier push has put there."""
        if not self.manifests:
            return frozenset({ATTRIBUTES})
        named = {ATTRIBUTES, CARD, CROISSANT}
        for folder, made in self.manifests.items():
            shards = (shard.file for split in made.splits.values() for shard in split.shards)
            named.update(f"{folder}{name}" for name in (CARD, manifest.NAME, DROPPED, ORIGINS, *shards))
        assets = tuple(f"{folder}{ASSETS}/" for folder in {"", *self.manifests})
        named.update(path for path in self.files if path.startswith(assets))
        return frozenset(named & self.files.keys())

    @property
    def foreign(self) -> list[str]:
        """The files that somebody else has put there."""
        return sorted(self.files.keys() - self.ours)

    def read_by(self, patterns: Collection[str]) -> list[str]:
        """The files that readers of these patterns of data files would take for shards."""
        return [path for path in self.files if any(_fits(path, pattern) for pattern in patterns)]


def _fits(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository that exists.

    head      the commit of the branch that is pushed to; None where the branch has to be made
    tags      commits by name
    """

    private: bool
    main: str
    head: str | None
    tags: dict[str, str]

    @property
    def versions(self) -> dict[int, str]:
        """The commits of the tags v1, v2, ... by their number."""
        return {int(match[1]): commit for tag, commit in self.tags.items() if (match := _VERSION.fullmatch(tag))}


class Repository:
    """The questions that are asked of one data set on the Hub; each raises HubError, or Passing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._trees: dict[str, Tree] = {}

    @cached_property
    def api(self) -> HfApi:
        """The Hub's own client."""
        return client()

    def find(self, revision: str) -> Remote | None:
        """The repository as it is now; None where there is none that this account sees."""
        from huggingface_hub import errors, get_token

        with asking(self.name):
            try:
                info = self.api.dataset_info(self.name)
            except errors.GatedRepoError:
                raise
            except errors.RepositoryNotFoundError as error:
                # Without a token the Hub answers 401 where there is nothing.
                if error.response.status_code == 401 and get_token():
                    raise
                return None
            pulls = revision.startswith("refs/")
            refs = self.api.list_repo_refs(self.name, repo_type="dataset", include_pull_requests=pulls)
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        heads = {name: ref.target_commit for ref in refs.branches for name in (ref.name, ref.ref)}
        heads |= {ref.ref: ref.target_commit for ref in refs.pull_requests or ()}
        if revision in tags or re.fullmatch("[0-9a-f]{40}", revision):
            raise HubError(f"{self.name}: {revision} is no branch, and a push goes to a branch; correct --revision.")
        if pulls and revision not in heads:
            raise HubError(f"{self.name}: there is no {revision}; see the pull requests of the repository.")
        main = heads.get("main") or info.sha
        if main is None:
            raise HubError(f"{self.name}: the repository has no branch main; make a commit on its page first.")
        return Remote(bool(info.private), main, heads.get(revision), tags)

    def tree(self, commit: str, manifests: bool = True) -> Tree:
        """The files at a commit; `manifests` are read where they are wanted."""
        if commit in self._trees:
            return self._trees[commit]
        from huggingface_hub import RepoFile

        with asking(self.name):
            listed = self.api.list_repo_tree(self.name, recursive=True, revision=commit, repo_type="dataset")
            files = {
                entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
                for entry in listed
                if isinstance(entry, RepoFile)
            }
        if not manifests:
            return Tree(commit, files)
        folders = [match["folder"] for path in files if (match := _MANIFEST.fullmatch(path))]
        read = {folder: made for folder in folders if (made := self._manifest(folder, commit)) is not None}
        self._trees[commit] = Tree(commit, files, read)
        return self._trees[commit]

    def _manifest(self, folder: str, commit: str) -> Manifest | None:
        """The manifest of a corpus of ours; None for a file of that name that is none."""
        try:
            made = msgspec.json.decode(self.read(folder + manifest.NAME, commit), type=Manifest)
        except DECODE_ERRORS:
            return None
        return made if made.tool.name == _TOOL else None

    def read(self, path: str, commit: str) -> bytes:
        """The bytes of a small file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        url = hf_hub_url(self.name, path, repo_type="dataset", revision=commit, endpoint=self.api.endpoint)
        with asking(self.name):
            answer = get_session().get(url, headers=build_hf_headers(library_name=_TOOL, library_version=__version__))
            hf_raise_for_status(answer)
            return answer.content

    def own_pull_requests(self, author: str) -> dict[int, str]:
        """The open pull requests of an account, the newest first, with their last commits."""
        with asking(self.name):
            refs = self.api.list_repo_refs(self.name, repo_type="dataset", include_pull_requests=True)
            heads = {ref.ref: ref.target_commit for ref in refs.pull_requests or ()}
            found = self.api.get_repo_discussions(
                self.name, author=author, repo_type="dataset", discussion_type="pull_request", discussion_status="open"
            )
            numbers = [request.num for request in found]
        return {number: heads[f"refs/pr/{number}"] for number in numbers if f"refs/pr/{number}" in heads}


def account(repo: str) -> str:
    """The name of the account whose token is in use; HubError where it has none, or one that only reads."""
    with asking(repo):
        found = client().whoami()
        name, access = str(found["name"]), found.get("auth", {}).get("accessToken", {})
    if access.get("role") == "read":
        raise HubError(f"{repo}: the token of {name} is one that only reads; {LOG_IN}.")
    return name


def client() -> HfApi:
    """The Hub's own client; it finds the endpoint and the token by itself."""
    from huggingface_hub import HfApi

    return HfApi(library_name=_TOOL, library_version=__version__)
