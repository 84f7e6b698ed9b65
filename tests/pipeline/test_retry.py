"""Doing again what was done: rows retried when their image has come, shards rebuilt and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from helpers import end_to_end

from vpt_data.cli.main import main
from vpt_data.corpus.manifest import read
from vpt_data.upstream.licenses import allows


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def build(raw: Path, out: Path, *more: str, images: str = "embed") -> Result:
    return command(
        "build", "--recipe", "sample", "--raw", str(raw), "--out", str(out), "--images", images, "--workers", "1",
        "--set", "shards=8", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "corpus"
    assert build(sample_root, out).exit_code == 0
    return out


@pytest.fixture
def root(sample_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_root, tmp_path / "raw"))


def stamps(corpus: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (corpus / "data").iterdir()}


def some_image(corpus: Path) -> tuple[str, str]:
    """A shard and an image in it that is one of a region row."""
    shard = sorted((corpus / "data").iterdir())[2]
    row = next(row for row in pq.read_table(shard).to_pylist() if row["looks"] == ["region"])
    return shard.name, row["images"][0]["path"]


def test_a_row_is_retried_when_its_image_has_come(root: Path, whole: Path, tmp_path: Path) -> None:
    shard, image = some_image(whole)
    kept = (root / image).read_bytes()
    (root / image).unlink()
    out = tmp_path / "corpus"
    assert build(root, out).exit_code == 0
    reasons = [drop["reason"] for drop in end_to_end.drops(out)]
    assert "missing_image" in reasons
    before = stamps(out)
    (root / image).write_bytes(kept)
    found = build(root, out, "--retry-dropped")
    assert found.exit_code == 0, found.output
    assert end_to_end.contents(out) == end_to_end.contents(whole)
    assert {name for name, stamp in stamps(out).items() if stamp != before[name]} == {shard}


def test_a_retry_without_news_changes_nothing(root: Path, whole: Path, tmp_path: Path) -> None:
    _, image = some_image(whole)
    (root / image).unlink()
    out = tmp_path / "corpus"
    assert build(root, out).exit_code == 0
    before = end_to_end.contents(out)
    assert build(root, out, "--retry-dropped").exit_code == 0
    assert end_to_end.contents(out) == before


def test_a_retry_needs_images_in_the_shards(sample_root: Path, tmp_path: Path) -> None:
    found = build(sample_root, tmp_path / "corpus", "--retry-dropped", images="reference")
    assert (found.exit_code, found.stderr) == (
        2, "Error: --retry-dropped is for corpora with --images embed; others drop no row for its image.\n"
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--fresh", "--retry-dropped"])
def test_ranks_neither_begin_anew_nor_retry(sample_root: Path, tmp_path: Path, option: str) -> None:
    found = build(sample_root, tmp_path / "corpus", "--engine", "ranks", option)
    assert (found.exit_code, found.stderr) == (
        2,
        (
            "Error: --fresh and --retry-dropped are for one process: each rank would undo what the others did; "
            "use --engine local, or remove the folder before the ranks start.\n"
        ),
    )


def test_rebuilt_shards_have_the_same_bytes(sample_root: Path, whole: Path) -> None:
    found = command("check", str(whole), "--rebuild", "3", "--raw", str(sample_root), "--json")
    assert found.exit_code == 0, found.output
    again = json.loads(found.stdout)["rebuild"]
    assert (len(again["rebuilt"]), again["differ"]) == (3, 0)
    assert all(shard["expected"] == shard["found"] for shard in again["rebuilt"])


def test_every_shard_of_several_splits_is_rebuilt(sample_root: Path, tmp_path: Path) -> None:
    out = end_to_end.build("vpt_eval", sample_root, tmp_path / "corpus")
    found = command("check", str(out), "--rebuild", "99", "--raw", str(sample_root))
    shards = sum(len(split.shards) for split in read(out).splits.values())
    assert found.exit_code == 0
    assert f"{shards} of {shards} shards made again have the same bytes." in found.stdout


def test_other_images_are_other_bytes(root: Path, whole: Path) -> None:
    """The manifest does not name images: only making the shard again shows that one was replaced."""
    for picture in (root / "coco/train2017").glob("*.jpg"):
        picture.write_bytes(picture.read_bytes() + b"\0" * 7)
    found = command("check", str(whole), "--rebuild", "8", "--raw", str(root))
    assert found.exit_code == 3
    assert "other bytes than the manifest says" in found.stdout


def test_other_rows_cannot_be_compared(root: Path, whole: Path) -> None:
    csv = root / "own/receipts.csv"
    csv.write_text(csv.read_text() + "\n")
    found = command("check", str(whole), "--rebuild", "1", "--raw", str(root))
    assert (found.exit_code, found.stderr) == (
        1, f"Error: {whole}: made from other files than {root} has, for instance own/receipts.csv.\n"
    )  # fmt: skip


def test_a_limited_corpus_cannot_be_compared(sample_root: Path, tmp_path: Path) -> None:
    out = end_to_end.build("sample", sample_root, tmp_path / "corpus", limit=3)
    found = command("check", str(out), "--rebuild", "1", "--raw", str(sample_root))
    assert (found.exit_code, found.stderr) == (
        1, f"Error: {out}: made with --limit, whose number is not known; build it again to compare.\n"
    )  # fmt: skip


def test_near_duplicates_are_reported_and_no_failure(whole: Path) -> None:
    found = command("check", str(whole), "--near-duplicates", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["near_duplicates"]["images"]


def test_against_needs_near_duplicates(whole: Path) -> None:
    found = command("check", str(whole), "--against", str(whole))
    assert (found.exit_code, found.stderr) == (2, "Error: --against needs --near-duplicates.\n")


@pytest.mark.parametrize("policy", ["research", "commercial"])
def test_a_licence_policy_keeps_rows_out_with_a_reason(sample_root: Path, tmp_path: Path, policy: str) -> None:
    out = tmp_path / "corpus"
    assert build(sample_root, out, "--license-policy", policy).exit_code == 0
    made = read(out)
    assert made.license_policy == policy
    for part in made.components:
        assert part.read == part.kept + sum(part.dropped.values())
    licences = {(row["license"], row["image_info"][0]["license"]) for row in end_to_end.rows(out) if row["image_info"]}
    assert all(allows(policy, text) for pair in licences for text in pair if text is not None)
    dropped = [drop for drop in end_to_end.drops(out) if drop["reason"] == "license"]
    assert dropped
    assert all(drop["detail"] for drop in dropped)


def test_another_policy_is_another_corpus(sample_root: Path, whole: Path) -> None:
    found = build(sample_root, whole, "--license-policy", "research")
    assert (found.exit_code, found.stderr) == (
        1, f"Error: {whole}: holds a corpus with other --license-policy; use --fresh to replace it.\n"
    )  # fmt: skip
