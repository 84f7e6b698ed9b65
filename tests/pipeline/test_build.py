"""Same raw rows, same recipe, same version: same corpus, wherever the inputs are; test_engines.py: whoever works."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import end_to_end

from vpt_data import recipe
from vpt_data.corpus.manifest import read
from vpt_data.pipeline import plan
from vpt_data.upstream import rawfile

#: Annotation files of the sample whose lines are records of their own; the benchmark's det files lose nothing by it.
LINES = (
    "visual_cot/metadata/*.jsonl",
    "visual_cot/viscot_benchmark/benchmark_det/*.jsonl",
    "pope/coco/*.json",
    "vsr/splits/random/*.jsonl",
)
ARRAYS = ("llava/*.json", "llava_pretrain/*.json")
OWN = ("own/signs.jsonl", "own/questions.jsonl")
#: The pattern in the recipe follows the files: own data is not looked for in parts.
OWN_PARTS = ('take.own_signs.files=["own/signs*.jsonl*"]', 'take.own_shelves.files=["own/questions*.jsonl*"]')


def assert_same_rows(corpus: Path, other: Path) -> None:
    """Equal but for what names the input files, which are other files."""
    one, two = read(corpus), read(other)
    assert two.fingerprint == one.fingerprint
    assert two.components == one.components
    assert two.splits == one.splits
    assert end_to_end.shards(other) == end_to_end.shards(corpus)
    assert without_places(other) == without_places(corpus)


def without_places(corpus: Path) -> list[tuple[str, ...]]:
    """What was dropped, without file and line."""
    return sorted(
        (drop["take"], drop["source"], str(drop["dataset"]), str(drop["key"]), drop["reason"])
        for drop in end_to_end.drops(corpus)
    )


def test_a_second_build_has_the_same_bytes(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    corpus = end_to_end.build("sample", sample_root, tmp_path / "corpus")
    assert end_to_end.contents(corpus) == end_to_end.contents(reference_corpus)


def test_a_root_elsewhere_gives_the_same_bytes(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    corpus = end_to_end.build("sample", end_to_end.linked_copy(sample_root, tmp_path / "moved"), tmp_path / "corpus")
    assert end_to_end.contents(corpus) == end_to_end.contents(reference_corpus)


def permute(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    random.Random(path.name).shuffle(lines)
    end_to_end.replace(path, b"".join(lines))


def permute_array(path: Path) -> None:
    records = json.loads(path.read_bytes())
    random.Random(path.name).shuffle(records)
    end_to_end.replace(path, json.dumps(records).encode())


def halve(path: Path) -> None:
    """NAME.jsonl becomes NAME-1.jsonl and NAME-2.jsonl.gz."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.with_name(f"{path.stem}-1{path.suffix}").write_bytes(b"".join(lines[: len(lines) // 2]))
    second = b"".join(lines[len(lines) // 2 :])
    path.with_name(f"{path.stem}-2{path.suffix}.gz").write_bytes(gzip.compress(second))
    path.unlink()


def compress(path: Path) -> None:
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def array_to_lines(path: Path) -> None:
    path.with_suffix(".jsonl").write_text(end_to_end.lines(json.loads(path.read_bytes())))
    path.unlink()


def changed(root: Path, copy: Path, changes: dict[Callable[[Path], None], tuple[str, ...]]) -> Path:
    end_to_end.linked_copy(root, copy)
    for change, patterns in changes.items():
        for pattern in patterns:
            paths = sorted(copy.glob(pattern))
            assert paths
            for path in paths:
                change(path)
    return copy


def test_permuted_inputs_give_the_same_corpus(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    changes = {permute: (*LINES, *OWN), permute_array: ARRAYS}
    corpus = end_to_end.build("sample", changed(sample_root, tmp_path / "raw", changes), tmp_path / "corpus")
    assert_same_rows(reference_corpus, corpus)


def test_compressed_inputs_give_the_same_corpus(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    changes = {compress: (*LINES, *ARRAYS, *OWN, "own/receipts.csv", "own/instances.json")}
    corpus = end_to_end.build("sample", changed(sample_root, tmp_path / "raw", changes), tmp_path / "corpus")
    assert_same_rows(reference_corpus, corpus)
    assert end_to_end.contents(corpus)["origins.parquet"] == end_to_end.contents(reference_corpus)["origins.parquet"]


def test_inputs_in_parts_give_the_same_corpus(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    raw = changed(sample_root, tmp_path / "raw", {halve: LINES, array_to_lines: ("llava/*.json",)})
    corpus = end_to_end.build("sample", raw, tmp_path / "corpus")
    assert_same_rows(reference_corpus, corpus)
    files = {origin["file"] for origin in end_to_end.origins(corpus)}
    assert {"visual_cot/metadata/gqa_cot_train-1.jsonl", "visual_cot/metadata/gqa_cot_train-2.jsonl"} <= files


def test_own_files_in_parts_give_the_same_rows(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    raw = changed(sample_root, tmp_path / "raw", {halve: OWN})
    corpus = end_to_end.build("sample", raw, tmp_path / "corpus", *OWN_PARTS)
    assert end_to_end.ids(corpus) == end_to_end.ids(reference_corpus)


@pytest.mark.parametrize("size", [3_000, 8_000])
def test_files_read_in_windows_give_the_same_corpus(
    sample_root: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Large files are cut into windows that workers share; with small windows the sample has some, too."""
    monkeypatch.setattr(rawfile, "WINDOW_BYTES", size)
    planned = plan.make(recipe.load("sample"), sample_root, "embed", None)
    files = [given.job.rows.name for given in planned.inputs]
    assert len(files) > len(set(files))
    corpus = end_to_end.build("sample", sample_root, tmp_path / "corpus", mode="embed")
    found, expected = end_to_end.contents(corpus), end_to_end.contents(embedded_corpus)
    assert [name for name in expected if found[name] != expected[name]] in ([], ["dropped.parquet"])
    assert found.keys() == expected.keys()
    one, other = ([json.dumps(drop) for drop in end_to_end.drops(each)] for each in (corpus, embedded_corpus))
    assert sorted(one) == sorted(other)


def quota_corpus(folder: Path, records: list[dict[str, Any]], *overrides: str) -> dict[str, list[str]]:
    """The kept ids of each shard, in order."""
    folder.mkdir()
    raw = end_to_end.own_root(folder / "raw", records)
    corpus = end_to_end.build(end_to_end.recipe_file(folder), raw, folder / "corpus", *overrides)
    end_to_end.account(corpus)
    return end_to_end.ids_by_shard(corpus)


@pytest.mark.parametrize("count", [40, "all"])
def test_one_more_row_moves_no_other(tmp_path: Path, count: int | str) -> None:
    quota = f"take.mine.count={json.dumps(count)}"
    records = end_to_end.own_rows(60)
    before = quota_corpus(tmp_path / "before", records, quota)
    assert len(before) == 4
    assert all(before.values())
    evicted = 0
    for number in range(8):
        more = [*records, *end_to_end.own_rows(1, start=100 + number)]
        after = quota_corpus(tmp_path / f"after{number}", more, quota)
        old, new = ({one for shard in each.values() for one in shard} for each in (before, after))
        gone, come = old - new, new - old
        assert len(come) <= 1
        assert len(gone) == (0 if count == "all" else len(come))
        for shard in before:
            kept = [one for one in after[shard] if one not in come]
            assert kept == [one for one in before[shard] if one not in gone]
        evicted += len(gone)
    assert evicted > 0 if count == 40 else evicted == 0


def test_rows_of_one_image_lie_in_one_shard(tmp_path: Path) -> None:
    corpus = end_to_end.build(
        end_to_end.recipe_file(tmp_path),
        end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(90)),
        tmp_path / "corpus",
    )
    image = {row["id"]: row["images"][0]["path"] for row in end_to_end.rows(corpus)}
    places: dict[str, set[str]] = {}
    for shard, listed in end_to_end.ids_by_shard(corpus).items():
        for sample in listed:
            places.setdefault(image[sample], set()).add(shard)
    assert len(places) == 30
    assert all(len(shards) == 1 for shards in places.values())


def test_the_seed_changes_order_and_selection_only(tmp_path: Path) -> None:
    records = end_to_end.own_rows(60)
    one = quota_corpus(tmp_path / "a", records, "take.mine.count=40")
    two = quota_corpus(tmp_path / "b", records, "take.mine.count=40", "seed=1")
    assert one != two
    assert sum(map(len, one.values())) == sum(map(len, two.values())) == 40


def test_a_limit_reads_the_first_records_of_each_file(sample_root: Path, tmp_path: Path) -> None:
    corpus = end_to_end.build("sample", sample_root, tmp_path / "corpus", limit=5)
    made = read(corpus)
    assert made.limited
    assert max(origin["row"] for origin in end_to_end.origins(corpus)) == 4
    account = end_to_end.account(corpus)
    assert {take: account[take].read for take in ("docvqa", "gqa", "own_signs", "vsr_native")} == {
        "docvqa": 5, "gqa": 5, "own_signs": 5, "vsr_native": 5,
    }  # fmt: skip


def test_a_rebuild_in_the_same_process_sees_the_new_rows(tmp_path: Path) -> None:
    own = end_to_end.recipe_file(tmp_path)
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(30))
    end_to_end.build(own, raw, tmp_path / "corpus")
    end_to_end.own_root(raw, end_to_end.own_rows(30, start=200))
    end_to_end.build(own, raw, tmp_path / "corpus", fresh=True)
    end_to_end.build(own, raw, tmp_path / "other")
    assert end_to_end.contents(tmp_path / "corpus") == end_to_end.contents(tmp_path / "other")
