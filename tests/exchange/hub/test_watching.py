"""The reader loop of the tests of publishing: it sees each version whole, and it would see a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import end_to_end, pushing
from helpers.hub.client import environment
from helpers.hub.server import HubServer
from helpers.hub.watching import WAYS, Read, Watcher, digest

from vpt_data.corpus.reader import open_corpus


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("versions")
    return pushing.corpus(folder / "old"), pushing.corpus(folder / "new", changed=True)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running
        assert running.broken == []


def test_it_sees_each_version_whole_and_a_mixture(
    server: HubServer, corpora: tuple[Path, Path], tmp_path: Path
) -> None:
    """The old version, the new one, then one of its shards is lost."""
    old, new = (digest(open_corpus(corpus).rows(images=False)) for corpus in corpora)
    fingerprints = [open_corpus(corpus).manifest.fingerprint for corpus in corpora]
    assert old != new and old[0] == new[0] == 12
    server.filled("org/name", corpora[0])
    repository = server.repository("org/name")
    repository.refs["refs/tags/v1"] = repository.at("main").oid
    watcher = Watcher(tmp_path, environment(server.quiet_url, tmp_path / "home", token=None))

    def reads(count: int) -> dict[str, Read]:
        """The last read in each way, when so many more have ended."""
        before = len(watcher.reads)
        watcher.await_reads(count)
        return {read.way: read for read in watcher.reads[before:]}

    watcher.look_at("org/name")
    first = reads(len(WAYS))
    assert {(read.rows, read.digest, read.error) for read in first.values()} == {(*old, "")}
    assert first["open_corpus"].fingerprint == fingerprints[0]
    server.commit("org/name", end_to_end.contents(corpora[1]))
    second = reads(len(WAYS) + 1)
    versions_read = {way: (read.rows, read.digest, read.error) for way, read in second.items()}
    assert versions_read == dict.fromkeys(WAYS, (*new, "")) | {"tag": (*old, "")}
    assert second["open_corpus"].fingerprint == fingerprints[1]
    largest = max((corpora[1] / "data").iterdir(), key=lambda path: path.stat().st_size)
    server.commit("org/name", {f"data/{largest.name}": None})
    third = reads(len(WAYS) + 1)
    watcher.end()
    for way in ("load_dataset", "streaming"):
        assert third[way].error or (third[way].rows, third[way].digest) not in {old, new}
    assert third["open_corpus"].error.startswith("CorpusError: ")
    assert server.faults.log == []
