"""Whatever goes wrong at whichever request of a push: readers see whole versions only, and the next push ends right.

An undisturbed push of each kind is recorded. Then each of its requests meets each fault in turn, or the process is
killed there, and the same command is run once more. In the default suite one case of each way to push, all with
VPT_SOAK=1 (`make soak`). A failure names the fault and the request.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from helpers import pushing
from helpers.hub import accounts
from helpers.hub.client import environment
from helpers.hub.faults import Fault, Seen, Wrong
from helpers.hub.repositories import Commit, Repository, git_id
from helpers.hub.server import HubServer
from helpers.hub.watching import Read, Watcher, digest
from helpers.mortal import Life, Mortal
from helpers.soak import SOAK, in_the_soak

from vpt_data.corpus.reader import open_corpus

#: What a push imports on its way, here once for all, and what saves it the drawing of pictures.
IMPORTED = (
    "vpt_data.exchange.hub.ready", "vpt_data.exchange.hub.push", "helpers.hub.undrawn_here", "pyarrow.dataset",
    "huggingface_hub.hf_api", "huggingface_hub._commit_api", "huggingface_hub.file_download", "httpcore2", "pandas",
    "tqdm.auto",
)  # fmt: skip
REFUSALS = {Wrong.EXPIRED, Wrong.FORBIDDEN, Wrong.QUOTA, Wrong.PAYMENT}
Files = dict[str, str]


class Way(NamedTuple):
    """A way to push.

    base     the repository that is there before; None where there is none
    config   what readers load of it
    """

    base: str | None
    arguments: list[str | Path]
    config: str = ""


class State(NamedTuple):
    """What readers can see of a repository: the versions that each branch has held, the tags, the pull requests."""

    branches: dict[str, list[Files]]
    tags: dict[str, list[Files]]
    requests: list[tuple[str, list[Files]]]


class Everybody(accounts.User):
    """A user who may write everywhere: each case has an organization of its own, and cards show the name alone."""

    def owns(self, namespace: str) -> bool:
        return True


class Bench:
    """A Hub, somebody who pushes and, where the server has the bytes, somebody who reads."""

    def __init__(self, folder: Path, server: HubServer) -> None:
        self.server = server
        server.tokens[accounts.WRITE] = accounts.Token(Everybody("me"))
        old, new = folder / "old", folder / "new"
        self.old = [pushing.corpus(old, 24), pushing.corpus(old, 12, "more")]
        self.new = [pushing.corpus(new, 24, changed=True), pushing.corpus(new, 12, "more")]
        self.digests = {digest(open_corpus(corpus).rows(images=False)) for corpus in (*self.old, *self.new)}
        plain = "1" if server.hub.xet is None else "0"
        env = environment(server.url, folder / "pusher", HF_HUB_DISABLE_XET=plain)
        self.mortal = Mortal(folder, IMPORTED, env)
        reader = environment(server.quiet_url, folder / "reader", token=None)
        self.watcher = Watcher(folder, reader) if server.hub.xet is None else None
        for base, corpora in {"one/name": self.old[:1], "many/name": self.old}.items():
            life = self.push(base, corpora)
            assert life.code == 0, life.output

    def ways(self) -> dict[str, Way]:
        return {
            "first": Way(None, [*self.new[:1]]),
            "second": Way("one/name", [*self.new[:1]]),
            "tag": Way("one/name", [*self.new[:1], "--tag", "release"]),
            "pull request": Way("one/name", [*self.new[:1], "--create-pr"]),
            "branch": Way("one/name", [*self.new[:1], "--revision", "next"]),
            "several first": Way(None, [*self.new], "more"),
            "several": Way("many/name", [*self.new], "own"),
        }

    def push(self, name: str, arguments: list[str | Path] | list[Path], fault: Fault | None = None) -> Life:
        """The command, with a fault or without."""
        self.server.faults.plan(*([fault] if fault else []))

        def started(pid: int) -> None:
            self.server.victim = pid

        return self.mortal.run(["push-to-hub", *arguments, "--repo", name, "--yes"], started=started)

    def place(self, way: Way, name: str) -> State:
        """Put what is there before into a new repository, and let the reader look at it."""
        if way.base is not None:
            self.server.copy(way.base, name)
        if self.watcher is not None:
            self.watcher.look_at(f"{name}/{way.config}".rstrip("/"))
        return self.state(name)

    def state(self, name: str) -> State:
        found = self.server.hub.repositories.get(("dataset", name))
        if found is None:
            return State({}, {}, [])
        refs = {ref: versions(found, ref) for ref in found.refs}
        return State(
            {ref: held for ref, held in refs.items() if ref.startswith("refs/heads/") and held},
            {ref: held[-1:] for ref, held in refs.items() if ref.startswith("refs/tags/")},
            [(one.status, refs.get(one.ref, [])) for one in found.discussions],
        )


def versions(found: Repository, ref: str) -> list[Files]:
    """What the commits of a reference have held, one after the other, but for the first, which makes the repository.

    What somebody else commits (`Wrong.STALE`) touches none of these files.
    """
    _, *commits = reversed(found.history(ref))
    return [files_of(found, commit) for commit in commits if commit.author != "somebody"]


def files_of(found: Repository, commit: Commit) -> Files:
    """The files of a commit and the Hub's names for their bytes, as if all repositories had the same name."""
    return {
        path: git_id(blob.data.replace(found.name.encode(), b"org/name")) if blob.data else blob.etag
        for path, blob in commit.files.items()
        if path != ".gitattributes"
    }


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with HubServer() as server:
        made = Bench(tmp_path_factory.mktemp("bench"), server)
        yield made
        made.mortal.end()
        check_reads(made, request.config)
        assert server.broken == []


@pytest.fixture(scope="module")
def xet_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Large files go through hf_xet to a store in a folder, which no document promises (see test_server.py)."""
    folder = tmp_path_factory.mktemp("xet")
    (folder / "store").mkdir()
    with HubServer(xet=folder / "store") as server:
        try:
            made = Bench(folder, server)
        except AssertionError as error:
            if "local:" not in str(error):
                raise
            pytest.skip("this hf_xet does not know local:// as a store")
        yield made
        made.mortal.end()
        assert server.broken == []


def check_reads(bench: Bench, config: pytest.Config) -> None:
    """Readers have seen whole versions, an error of the client, or a repository that holds none so far."""
    assert bench.watcher is not None
    reads = bench.watcher.end()
    wrong = [read for read in reads if read.error and not (is_empty(read) or is_between_requests(read))]
    wrong += [read for read in reads if not read.error and (read.rows, read.digest) not in bench.digests]
    seen, unlucky = sum(not read.error for read in reads), sum(map(is_between_requests, reads))
    report(config, f"{len(reads)} reads, {seen} saw a version, {unlucky} ended between two requests")
    assert seen and not wrong, wrong[:5]


def is_empty(read: Read) -> bool:
    """Whether the error is that of a repository without a version or a tag: before its first push has ended."""
    nothing = ("DatasetNotFoundError", "EmptyDatasetError", "CorpusError", "RepositoryNotFoundError", "no tag")
    return "first" in read.repository and read.error.startswith(nothing)


def is_between_requests(read: Read) -> bool:
    """Whether a commit came when `datasets` had asked for the size of main's README.md and not yet for its bytes.

    Its client asks for the two by the name of the branch, and ends with an error. All else it reads at one commit.
    """
    return read.error.startswith("OSError: Consistency check failed") and "README.md" in read.error


def report(config: pytest.Config, text: str) -> None:
    """Print how much was tried, past what keeps the output of tests that pass."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():  # type: ignore[union-attr]
        print(f"\npush, {text}", file=sys.stderr)  # noqa: T201


def cases(log: list[Seen]) -> list[tuple[int, Wrong]]:
    """Each request with each fault that means something for it."""
    found = []
    for seen in log:
        for wrong in Wrong:
            without_body = wrong.in_body and seen.received < 2
            without_answer = wrong is Wrong.DROP_IN_ANSWER and seen.sent < 2
            same = wrong in {Wrong.DROP_AFTER_BODY, Wrong.DROP_AFTER_EFFECT} and not seen.changes
            if not (without_body or without_answer or same):
                found.append((seen.number, wrong))
    return found


@contextmanager
def about(*what: object) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{' '.join(map(str, what))}: {error}") from error


@pytest.mark.parametrize("name", ["first", "second", "tag", "pull request", "branch", "several first", "several"])
def test_a_fault_at_every_request(bench: Bench, name: str, pytestconfig: pytest.Config) -> None:
    every_case(bench, name, pytestconfig)


@in_the_soak
@pytest.mark.parametrize("name", ["first", "second"])
def test_a_fault_at_every_request_with_xet(xet_bench: Bench, name: str, pytestconfig: pytest.Config) -> None:
    """What hf_xet stores can be downloaded afterwards: see test_publishing.py."""
    every_case(xet_bench, name, pytestconfig)


def every_case(bench: Bench, name: str, pytestconfig: pytest.Config) -> None:
    way, slug = bench.ways()[name], name.replace(" ", "-")
    before = bench.place(way, f"{slug}/name")
    life = bench.push(f"{slug}/name", way.arguments)
    assert life.code == 0, life.output
    log, whole = bench.server.faults.log, bench.state(f"{slug}/name")
    assert whole != before
    every = cases(log)
    chosen = every if SOAK else [Random(name).choice(every)]
    wrong = []
    for number, (at, fault) in enumerate(chosen):
        try:
            with about(fault, "at request", at, log[at].line):
                one_case(bench, way, f"{slug}-{number}/name", before, whole, at, fault)
        except AssertionError as error:
            wrong.append(str(error))
    how = f"{name}, xet" if bench.server.hub.xet else name
    report(pytestconfig, f"{how}: {len(log)} requests, {len(chosen)} of {len(every)} cases")
    assert not wrong, f"{len(wrong)} cases\n" + "\n".join(wrong[:10])


def one_case(bench: Bench, way: Way, name: str, before: State, whole: State, at: int, wrong: Wrong) -> None:
    assert bench.place(way, name) == before
    first = bench.push(name, way.arguments, Fault(wrong, at))
    assert bench.server.faults.planned[0].struck == 1, "the request was not made"
    check_output(first, wrong)
    between = bench.state(name)
    assert is_between(between, before, whole), (between, before, whole)
    second = bench.push(name, way.arguments)
    assert second.code == 0, second.output
    assert bench.state(name) == whole, "the second push has left something else"


def is_between(now: State, before: State, whole: State) -> bool:
    """Whether nothing is gone that was there before, and nothing is there that an undisturbed push does not make."""
    branches = all(
        now.branches[ref] == whole.branches[ref][: len(now.branches[ref])]
        and len(now.branches[ref]) >= len(before.branches.get(ref, []))
        for ref in now.branches.keys() | before.branches.keys()
    )
    tags = before.tags.items() <= now.tags.items() <= whole.tags.items()
    return branches and tags and now.requests in (before.requests, whole.requests)


def check_output(life: Life, wrong: Wrong) -> None:
    """What may pass is waited for; what may not is one sentence; a token is in neither."""
    assert not any(secret in life.output for secret in accounts.SECRETS), life.output
    assert "Traceback" not in life.output, life.output
    if wrong.kills:
        assert life.code == -9, life.output
    elif wrong in REFUSALS:
        lines = [line for line in life.output.splitlines() if line.startswith("Error: ")]
        assert (life.code, len(lines)) in {(1, 1), (0, 0)}, life.output
    else:
        assert life.code == 0, life.output
