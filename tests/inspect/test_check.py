"""A corpus that is whole passes; every way to damage one is found, under one rule, with an example."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import small_corpora

from vpt_data import store
from vpt_data.cli.main import main
from vpt_data.corpus.manifest import InputRecord, Manifest
from vpt_data.errors import CorpusError
from vpt_data.exchange.published.lint import lint
from vpt_data.inspect import check as checks
from vpt_data.inspect.check import check
from vpt_data.report import Finding
from vpt_data.selection.take_counts import TakeCounts

Row = dict[str, Any]
TRAIN = "data/train-00000-of-00002.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("embedded"), "embed")


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


@pytest.fixture
def with_pixels(embedded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded, tmp_path / "corpus"))


def found(corpus: Path) -> dict[str, Finding]:
    return {finding.rule: finding for finding in check(corpus).findings}


def test_a_whole_corpus_passes(whole: Path, embedded: Path) -> None:
    for corpus in (whole, embedded):
        report = check(corpus)
        assert report.findings == []
        assert report.rows == 45
        assert report.text() == f"rows per split: train 33, coarse 6, test 6\n{corpus}: 45 rows, nothing found."
        assert report.as_dict()["ok"] is True
        assert report.as_dict()["counts"] == {"rows per split": {"train": 33, "coarse": 6, "test": 6}}


def test_without_rows_only_what_is_cheap_is_looked_at(corpus: Path) -> None:
    assert check(corpus, rows=False).findings == []
    damaged = bytearray((corpus / TRAIN).read_bytes())
    damaged[1000] ^= 1
    (corpus / TRAIN).write_bytes(damaged)
    assert check(corpus, rows=False).findings == []  # neither hashed nor read
    (corpus / TRAIN).write_bytes(damaged[:-1])
    origins = pq.read_table(corpus / "origins.parquet")
    pq.write_table(origins.slice(1), corpus / "origins.parquet")
    (corpus / "dropped.parquet").unlink()
    (corpus / "data/notes.txt").touch()
    broken = {finding.rule for finding in check(corpus, rows=False).findings}
    assert broken == {"shard_bytes", "shard_readable", "origins", "side_table", "foreign_file"}


# ---- pixels


def test_embedded_images_are_hashed(with_pixels: Path) -> None:
    hit: list[str] = []

    def other_hash(samples: pa.Table) -> pa.Table:
        rows = samples.column("image_info").to_pylist()
        at = next(number for number, infos in enumerate(rows) if infos)
        if not hit:
            hit.append(samples["id"][at].as_py())
            rows[at][0]["sha256"] = "0" * 64
        place = samples.schema.get_field_index("image_info")
        field = samples.schema.field(place)
        return samples.set_column(place, field, pa.array(rows, field.type))

    small_corpora.settle(with_pixels, other_hash)
    assert check(with_pixels).findings == [Finding(TRAIN, "image_sha256", 1, hit[0])]


def test_embedded_images_that_are_not_there(with_pixels: Path) -> None:
    def change(row: Row) -> bool:
        for image in row["images"]:
            image["bytes"] = None
        return bool(row["images"])

    small_corpora.change_manifest(with_pixels, lambda made: setattr(made, "mode", "reference"))
    assert set(found(with_pixels)) == {"image_bytes", "images"}
    assert small_corpora.change_rows(with_pixels, change) == 44
    small_corpora.change_manifest(with_pixels, lambda made: setattr(made, "mode", "embed"))
    assert [(f.rule, f.count) for f in check(with_pixels).findings] == [("image_bytes", 44)]


def test_licences_of_images_are_counted(corpus: Path) -> None:
    def change(row: Row) -> bool:
        for info in row["image_info"]:
            info["license"] = "CC0-1.0"
        return bool(row["image_info"])

    assert small_corpora.change_rows(corpus, change) == 44
    [finding] = check(corpus).findings
    assert (finding.where, finding.rule) == ("manifest.json", "images")
    assert finding.example.startswith("licenses: ") and "the shards hold" in finding.example
    assert "CC0-1.0" in finding.example.partition("the shards hold")[2]


def test_number_of_embedded_images(with_pixels: Path) -> None:
    small_corpora.change_manifest(with_pixels, lambda made: setattr(made.images, "embedded", 20))
    assert check(with_pixels).findings == [Finding("manifest.json", "images", 1, "embedded: 20, the shards hold 21")]


# ---- files


def test_missing_shard(corpus: Path) -> None:
    (corpus / TRAIN).unlink()
    assert check(corpus).findings == [Finding(TRAIN, "shard_missing", 1, "not there")]


def test_flipped_byte(corpus: Path) -> None:
    data = bytearray((corpus / TRAIN).read_bytes())
    data[-20] ^= 1
    (corpus / TRAIN).write_bytes(data)
    finding = found(corpus)["shard_sha256"]
    assert finding.where == TRAIN
    assert "the manifest says" in finding.example


def test_shard_cut_short(corpus: Path) -> None:
    data = (corpus / TRAIN).read_bytes()
    (corpus / TRAIN).write_bytes(data[:-9])
    findings = found(corpus)
    assert set(findings) == {"shard_bytes", "shard_readable"}
    assert findings["shard_bytes"].example == f"{len(data) - 9:,} bytes, the manifest says {len(data):,}"


def test_damaged_pages(corpus: Path) -> None:
    data = bytearray((corpus / TRAIN).read_bytes())
    data[4:2000] = bytes(1996)
    (corpus / TRAIN).write_bytes(data)
    findings = found(corpus)
    assert set(findings) == {"shard_sha256", "shard_readable"}
    assert "not a readable shard" in findings["shard_readable"].example


def test_foreign_files(corpus: Path) -> None:
    (corpus / "data" / "more").mkdir()
    (corpus / "data" / "train-00002-of-00002.parquet").write_bytes(b"")
    assert check(corpus).findings == [Finding("data/", "foreign_file", 2, "data/more")]


def test_shard_names(corpus: Path) -> None:
    def elsewhere(made: Manifest) -> None:
        shard = made.splits["test"].shards[0]
        made.splits["test"].shards[0] = type(shard)("../x.parquet", shard.rows, shard.bytes, shard.sha256)

    small_corpora.change_manifest(corpus, elsewhere)
    findings = found(corpus)
    assert findings["shard_name"] == Finding("../x.parquet", "shard_name", 1, "in split test")
    assert set(findings) == {"shard_name", "foreign_file"}


def _rewritten(corpus: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the first shard anew without any of our options, and tell the manifest."""
    table = change(pq.read_table(corpus / TRAIN, partitioning=None))
    pq.write_table(table, corpus / TRAIN)

    def tell(made: Manifest) -> None:
        old = made.splits["train"].shards[0]
        size = (corpus / TRAIN).stat().st_size
        made.splits["train"].shards[0] = type(old)(old.file, old.rows, size, store.sha256(corpus / TRAIN))

    small_corpora.change_manifest(corpus, tell)


@pytest.mark.parametrize(
    ("change", "rule", "example"),
    [
        (lambda t: t.drop_columns(["looks"]), "schema", "no column looks"),
        (lambda t: t.append_column("more", t["id"]), "schema", "unknown column more"),
        (lambda t: t.select(t.column_names[::-1]), "schema", "columns in another order"),
        (
            lambda t: t.set_column(t.column_names.index("k"), "k", t["k"].cast(pa.int64())),
            "schema",
            "column k is int64, expected int32",
        ),
        (lambda t: t.replace_schema_metadata(None), "features", "missing"),
        (lambda t: t.replace_schema_metadata({"huggingface": "{}"}), "features", "not that of a sample"),
    ],
    ids=["gone", "more", "order", "type", "no features", "other features"],
)
def test_schema(corpus: Path, change: Callable[[pa.Table], pa.Table], rule: str, example: str) -> None:
    _rewritten(corpus, change)
    assert check(corpus).findings == [Finding(TRAIN, rule, 1, example)]


def test_rows_that_are_gone(corpus: Path) -> None:
    gone = pq.read_table(corpus / TRAIN, columns=["id"])["id"][-1].as_py()
    rows = pq.read_metadata(corpus / TRAIN).num_rows
    _rewritten(corpus, lambda table: table.slice(0, len(table) - 1))
    findings = found(corpus)
    assert set(findings) - {"images"} == {"shard_rows", "take_rows", "fingerprint", "origins"}
    assert findings["shard_rows"].example == f"{rows - 1}, the manifest says {rows}"
    assert findings["origins"] == Finding("origins.parquet", "origins", 1, f"no sample {gone}")


def test_rows_that_are_twice_there(corpus: Path) -> None:
    again = pq.read_table(corpus / TRAIN, columns=["id"])["id"][0].as_py()
    _rewritten(corpus, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    findings = found(corpus)
    assert set(findings) == {"shard_rows", "take_rows", "id_repeated", "fingerprint"}
    assert findings["id_repeated"] == Finding("data/", "id_repeated", 1, f"{again} occurs 2 times")


# ---- numbers


def _first(made: Manifest) -> TakeCounts:
    return made.components[0]


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (lambda made: setattr(made, "schema_version", 9), {"schema_version": "9, expected 1"}),
        (lambda made: setattr(made, "fingerprint", "f"), {"fingerprint": "f, the rows have"}),
        (
            lambda made: setattr(_first(made), "read", 7),
            {"component_sum": "gqa: read 7, kept 6, dropped 0"},
        ),
        (
            lambda made: _first(made).dropped.update(no_size=1),
            {
                "component_sum": "gqa: read 6, kept 6, dropped 1",
                "dropped_rows": "gqa, no_size: 1, the table has 0",
            },
        ),
        (
            lambda made: (setattr(_first(made), "read", 5), setattr(_first(made), "kept", 5)),
            {"kept_sum": "kept 44, rows 45", "take_rows": "gqa: 5, the shards hold 6"},
        ),
        (
            lambda made: setattr(made.splits["test"], "rows", 7),
            {"split_rows": "test: 7, its shards have 6", "kept_sum": "kept 45, rows 46"},
        ),
        (lambda made: made.inputs.clear(), {"origins": "is not an input"}),
    ],
)
def test_numbers(corpus: Path, change: Callable[[Manifest], None], rules: dict[str, str]) -> None:
    small_corpora.change_manifest(corpus, change)
    findings = found(corpus)
    assert set(findings) == set(rules)
    for rule, example in rules.items():
        assert example in findings[rule].example


def test_side_tables(corpus: Path) -> None:
    (corpus / "dropped.parquet").unlink()
    (corpus / "origins.parquet").write_bytes(b"PAR1")
    findings = check(corpus).findings
    assert [(finding.rule, finding.where, finding.count) for finding in findings] == [
        ("side_table", "dropped.parquet", 2)
    ]
    assert findings[0].example == "not there"
    pq.write_table(pa.table({"id": ["a"]}), corpus / "dropped.parquet")
    assert found(corpus)["side_table"].example == "no column take"


def test_origins(corpus: Path) -> None:
    table = pq.read_table(corpus / "origins.parquet")
    first = table["id"][0].as_py()
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), corpus / "origins.parquet")
    assert check(corpus).findings == [Finding("origins.parquet", "origins", 1, f"{first} occurs 2 times")]
    pq.write_table(table.slice(1), corpus / "origins.parquet")
    assert check(corpus).findings == [Finding("origins.parquet", "origins", 1, f"no row for {first}")]


def test_repaired_rows(corpus: Path) -> None:
    table = pq.read_table(corpus / "origins.parquet")
    column = table.schema.get_field_index("repaired")
    kinds = pa.array([["reencoded"], *[[]] * (len(table) - 1)], table.schema.field(column).type)
    pq.write_table(table.set_column(column, table.schema.field(column), kinds), corpus / "origins.parquet")
    (finding,) = check(corpus).findings
    assert (finding.where, finding.rule) == ("origins.parquet", "repaired_rows")
    take = table["id"][0].as_py().split("/")[0]
    assert finding.example == f"{take}, reencoded: 0, the table has 1"


def test_dropped_table(corpus: Path) -> None:
    table = pq.read_table(corpus / "dropped.parquet")
    assert pc.unique(table["reason"]).to_pylist() == ["claimed"]
    pq.write_table(table.slice(1), corpus / "dropped.parquet")
    example = "rest, claimed: 2, the table has 1"
    assert check(corpus).findings == [Finding("dropped.parquet", "dropped_rows", 1, example)]


def test_every_corpus_rule_has_a_meaning() -> None:
    assert all(text and text[-1] != "." for text in checks.RULES.values())


# ---- targets and the command


def test_targets_that_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing: there is no such file or folder; expected a corpus"):
        lint(tmp_path / "nothing")
    with pytest.raises(CorpusError, match=r"no manifest\.json, so this is no corpus"):
        check(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"notes\.txt: a file of another kind; expected a corpus"):
        lint(tmp_path / "notes.txt")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CorpusError, match="not a manifest of this version"):
        check(tmp_path)


def test_command(corpus: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(corpus)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{corpus}: 45 rows, nothing found.")
    small_corpora.change_manifest(corpus, lambda made: made.inputs.append(InputRecord("x", 1, "y")))
    (corpus / TRAIN).unlink()
    done = CliRunner().invoke(main, ["check", str(corpus)])
    assert done.exit_code == 3
    assert f"shard_missing (1): {checks.RULES['shard_missing']}.\n    {TRAIN}: not there" in done.stdout
    assert done.stdout.endswith("1 rule broken.\n")
    said = json.loads(CliRunner().invoke(main, ["check", str(corpus), "--json"]).stdout)
    assert (said["ok"], said["findings"][0]["rule"]) == (False, "shard_missing")
