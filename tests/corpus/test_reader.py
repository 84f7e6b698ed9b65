"""A corpus is read row group by row group, from a folder, an object store or the Hub; pixels only where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import end_to_end
from helpers.hub.client import point_at
from helpers.hub.faults import Fault, Wrong
from helpers.hub.server import HubServer
from pyarrow import fs

from vpt_data import store
from vpt_data.cli.main import main
from vpt_data.corpus.reader import open_corpus
from vpt_data.errors import CorpusError, UsageError
from vpt_data.schema import DROP, ORIGIN, SAMPLE


@pytest.fixture(params=["reference", "embedded"])
def corpus(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"{request.param}_corpus")
    return found


@pytest.fixture
def hub(embedded_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The embedded sample corpus as a data set of a Hub on this machine."""
    with HubServer() as server:
        server.filled("org/name", embedded_corpus)
        point_at(server.url, monkeypatch)
        yield server


def head(hub: HubServer) -> str:
    return hub.repository("org/name").at("main").oid


def test_rows_and_tables_are_those_of_the_shards(corpus: Path) -> None:
    opened = open_corpus(corpus)
    files = sorted((corpus / "data").glob("*.parquet"))
    expected = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert list(opened.rows()) == expected
    assert len(expected) == opened.manifest.splits["train"].rows
    tables = list(opened.tables("train", images=True))
    assert [row for table in tables for row in table.to_pylist()] == expected
    groups = [pq.ParquetFile(file).num_row_groups for file in files]
    assert len(tables) == sum(groups)


def test_columns_are_chosen_and_pixels_are_left_out(corpus: Path) -> None:
    opened = open_corpus(str(corpus))
    table = pa.concat_tables(opened.tables(columns=["images", "id"]))
    assert set(table.column_names) == {"id", "images"}
    assert table.schema.field("images").type.value_type.names == ["path"]
    assert set(next(opened.tables()).column_names) == set(SAMPLE.names)
    row = next(opened.rows(columns=["id", "images"], images=False))
    assert set(row) == {"id", "images"} and set(row["images"][0]) == {"path"}
    with pytest.raises(UsageError, match=r"^Unknown column 'message'; did you mean messages"):
        next(opened.rows(columns=["message"]))
    with pytest.raises(UsageError, match=r"^Unknown split of .* 'test'; known: train\.$"):
        next(opened.rows("test"))


def test_an_image_that_rows_share_is_in_memory_once(embedded_corpus: Path) -> None:
    for table in open_corpus(embedded_corpus).tables(columns=["images"], images=True):
        leaf = table["images"].combine_chunks().flatten().field("bytes")
        assert pa.types.is_dictionary(leaf.type)
        assert len(leaf.dictionary.unique()) == len(leaf.dictionary)


def test_the_tables_beside_the_shards(corpus: Path, tmp_path: Path) -> None:
    opened = open_corpus(corpus)
    dropped = sum(sum(part.dropped.values()) for part in opened.manifest.components)
    assert opened.dropped().schema.equals(DROP) and len(opened.dropped()) == dropped
    assert opened.origins().schema.equals(ORIGIN)
    assert set(opened.origins()["id"].to_pylist()) == set(end_to_end.ids(corpus))
    (tmp_path / "manifest.json").write_bytes((corpus / "manifest.json").read_bytes())
    with pytest.raises(CorpusError, match=r"dropped\.parquet: not there; build the corpus again\.$"):
        open_corpus(tmp_path).dropped()
    pq.write_table(pa.table({"take": ["a"]}), tmp_path / "dropped.parquet")
    with pytest.raises(CorpusError, match=r"dropped\.parquet: no column source; build the corpus again\.$"):
        open_corpus(tmp_path).dropped()


def test_an_object_store(corpus: Path) -> None:
    system = fs.SubTreeFileSystem(str(corpus.parent), fs.LocalFileSystem())
    remote = store.RemotePath(system, "s3", corpus.name)
    assert list(open_corpus(remote).rows()) == list(open_corpus(corpus).rows())


def test_the_hub_is_read_by_ranges_at_one_commit(hub: HubServer, embedded_corpus: Path) -> None:
    opened = open_corpus("hf://datasets/org/name")
    assert str(opened.place) == f"hf://datasets/org/name@{head(hub)}"
    assert opened.manifest == open_corpus(embedded_corpus).manifest
    assert list(opened.rows()) == list(open_corpus(embedded_corpus).rows())
    assert opened.dropped().equals(open_corpus(embedded_corpus).dropped())


def test_text_from_the_hub_costs_no_pixels(hub: HubServer, embedded_corpus: Path) -> None:
    opened = open_corpus("hf://datasets/org/name@main")
    assert sum(1 for _ in opened.rows(columns=["id", "messages"], images=False)) == opened.manifest.splits["train"].rows
    addresses = [f"/datasets/org/name/resolve/{head(hub)}/data/{shard.path.name}" for shard in opened.shards()]
    seen = [seen for address in addresses for seen in hub.asked(address)]
    stored = sum(shard.bytes for shard in opened.manifest.splits["train"].shards)
    assert 0 < sum(one.sent for one in seen) < stored / 4
    assert {one.status for one in seen if one.sent} == {206}


def test_a_commit_of_the_hub_stays_the_same_while_it_is_read(hub: HubServer, embedded_corpus: Path) -> None:
    opened = open_corpus("hf://datasets/org/name")
    hub.commit("org/name", {"manifest.json": b"{}", **{f"data/{shard.path.name}": None for shard in opened.shards()}})
    assert len(list(opened.rows())) == opened.manifest.splits["train"].rows


def test_what_the_hub_does_is_one_sentence(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"^hf://models/org/name: expected hf://datasets/ORG/NAME, or "):
        open_corpus("hf://models/org/name")
    with pytest.raises(UsageError, match=r"^hf://datasets/name: expected hf://datasets/ORG/NAME, or "):
        open_corpus("hf://datasets/name")
    with pytest.raises(
        CorpusError, match=r"^hf://datasets/org/none: cannot be opened on http://127.* \(.*\); check the"
    ):
        open_corpus("hf://datasets/org/none")
    shard = open_corpus("hf://datasets/org/name").shards()[0]
    hub.faults.plan(Fault(Wrong.FORBIDDEN, fits=f"GET .*/data/{shard.path.name}", times=99))
    with pytest.raises(CorpusError, match=rf"^{shard.name}: not a readable shard \(.*403.*\); build or download"):
        next(shard.tables())
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(CorpusError, match=r"^hf://datasets/org/name: cannot be opened on http://127\.0\.0\.1:9 \("):
        open_corpus("hf://datasets/org/name")


def test_nothing_is_written_to_the_hub(hub: HubServer) -> None:
    place = store.at("hf://datasets/org/name")
    with pytest.raises(UsageError, match=r"/a\.txt: a data set on the Hub is only read here; write to a folder\.$"):
        store.write(place / "a.txt", b"a")
    with pytest.raises(UsageError, match=r"only read here"):
        (place / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"only read here"):
        store.remove_tree(place / "data")


def test_check_and_stats_read_from_the_hub(hub: HubServer, embedded_corpus: Path) -> None:
    local, remote = str(embedded_corpus), "hf://datasets/org/name"
    found = [CliRunner().invoke(main, ["stats", place, "--json"]) for place in (local, remote)]
    assert found[0].output == found[1].output and found[1].exit_code == 0
    checked = CliRunner().invoke(main, ["check", remote])
    assert checked.exit_code == 0 and "nothing found." in checked.output
