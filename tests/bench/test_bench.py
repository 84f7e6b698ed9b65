"""The benchmark programs at a tiny size: they run, and their input has the owners' shape."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xxhash
from helpers.soak import in_the_soak

from bench import build_full, floor, images, images_peers, images_raw
from bench.make_raw import SOURCES, main, make_raw
from bench.measure import Cost, measure
from bench.raw_llava import COUNTS
from vpt_data import recipe as recipes
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.schema import SAMPLE

SCALE = 0.002
LLAVA = "llava/llava_v1_5_mix665k.json"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "raw"
    make_raw(root, SCALE)
    return root


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_metadata_has_scaled_counts_and_the_owners_keys(raw: Path) -> None:
    for name, source in SOURCES.items():
        path = raw / f"visual_cot/metadata/{name}_cot_train.jsonl"
        assert path.exists() == (source.rows > 0)
        if not source.rows:
            continue
        rows = lines(path)
        assert len(rows) == round(source.rows * SCALE)
        assert len({(row["image"], row["question"]) for row in rows}) == len(rows)
        for row in rows:
            assert {
                "question",
                "answer",
                "image",
                "width",
                "height",
                "bboxs",
                "dataset",
                "split",
            } <= row.keys()
            assert row["dataset"] == name
            assert all(len(box) == 4 for box in row["bboxs"])
    assert isinstance(lines(raw / "visual_cot/metadata/docvqa_cot_train.jsonl")[0]["bboxs"][0][0], int)
    assert isinstance(lines(raw / "visual_cot/metadata/vsr_cot_train.jsonl")[0]["bboxs"][0][0], float)
    assert "reasoning" in lines(raw / "visual_cot/metadata/gqa_cot_train.jsonl")[0]


def test_benchmark_pairs_are_row_aligned(raw: Path) -> None:
    base = raw / "visual_cot/viscot_benchmark"
    for name, source in SOURCES.items():
        boxes = lines(base / f"benchmark_det/{name}.jsonl")
        answers = json.loads((base / f"benchmark/{name}.json").read_text(encoding="utf-8"))
        assert len(boxes) == len(answers) == source.test_rows
        for box, answer in zip(boxes, answers, strict=True):
            assert box["img_path"] == answer["image"][0]
            assert answer["conversations"][0]["value"].startswith(f"<image>\n{box['expression']} Please provide")
    assert len(lines(raw / "pope/coco/coco_pope_popular.json")) == 3000


def test_the_llava_array_has_the_owners_forms(raw: Path) -> None:
    records = json.loads((raw / LLAVA).read_text(encoding="utf-8"))
    assert len(records) == sum(max(2, round(count * SCALE)) for count in COUNTS.values())
    shown = [record for record in records if "image" in record]
    assert records[: len(shown)] == shown  # text-only ones come last
    assert all(isinstance(r["id"], int) == r["image"].startswith("gqa/") for r in shown)
    assert all(
        [t["from"] for t in r["conversations"]] == ["human", "gpt"] * (len(r["conversations"]) // 2) for r in records
    )
    first = [record["conversations"][0]["value"] for record in shown]
    assert all(text.count("<image>") == 1 for text in first)
    assert 0.08 < sum(text.endswith("\n<image>") for text in first) / len(first) < 0.16


def test_same_seed_same_bytes_and_another_seed_others(raw: Path, tmp_path: Path) -> None:
    make_raw(tmp_path / "again", SCALE)
    make_raw(tmp_path / "other", SCALE, seed=1)
    for path in (LLAVA, "visual_cot/metadata/gqa_cot_train.jsonl"):
        assert (tmp_path / "again" / path).read_bytes() == (raw / path).read_bytes()
        assert (tmp_path / "other" / path).read_bytes() != (raw / path).read_bytes()


def test_a_scale_above_the_true_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"make_raw: scale is 2\.0, expected above 0 and at most 1"):
        main(["--out", str(tmp_path), "--scale", "2"])


def test_floor_writes_every_image_record(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = floor.run_floor(raw, tmp_path / "whole.parquet")
    monkeypatch.setattr(floor, "CHUNK", 50_000)
    found = floor.run_floor(raw, tmp_path / "floor.parquet")
    table = pq.read_table(tmp_path / "floor.parquet")
    whole_messages = pq.read_table(tmp_path / "whole.parquet", columns=["messages"])["messages"]
    assert table["messages"].combine_chunks().equals(whole_messages.combine_chunks())  # however the file is cut
    assert found["rows"] == whole["rows"] == table.num_rows
    images = [r for r in json.loads((raw / LLAVA).read_text(encoding="utf-8")) if "image" in r]
    assert table.num_rows == len(images) + sum(round(source.rows * SCALE) for source in SOURCES.values())
    assert table.schema.remove_metadata().names == SAMPLE.names
    assert found["input_bytes"] == sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())


def test_rowwise_program_makes_the_rows_of_the_build(raw: Path, tmp_path: Path) -> None:
    root = with_odd_records(raw, tmp_path / "raw")
    counts = {"llava_coco": 100, "llava_gqa": 40, "llava_rest": 300, "cub": 12, "docvqa": 50}
    given = [part for name, count in counts.items() for part in ("--count", f"{name}={count}")]
    # In a process of its own: `datasets` warns about things that are not ours, and keeps caches open.
    cost = build_full.python(tmp_path, "bench.rowwise", "--raw", str(root), "--out", str(tmp_path / "rows"), *given)
    recipe = recipes.load(build_full.RECIPE, [f"take.{name}.count={count}" for name, count in counts.items()])
    made = pipeline.build(plan.make(recipe, root, "reference", None), tmp_path / "corpus").manifest
    takes = [component for component in made.components if component.take in recipe.take]
    kept = {component.take: component.kept for component in takes}
    assert {reason for component in takes for reason in component.dropped} == {
        *("claimed", "duplicate", "empty_answer", "eval_image", "no_region_left", "not_selected"),
    }
    assert all(kept[name] == count for name, count in counts.items())
    assert json.loads(cost.stdout)["takes"] == kept
    written = pq.read_table(tmp_path / "rows/train.parquet")
    built = ds.dataset(tmp_path / "corpus/data").to_table()
    assert written.schema.remove_metadata().equals(built.schema.remove_metadata())
    assert by_id(written) == by_id(built)
    ids = written["id"].to_pylist()
    assert ids == sorted(ids, key=lambda name: xxhash.xxh3_64_intdigest(f"0\0{name}".encode()))


def with_odd_records(raw: Path, root: Path) -> Path:
    """A copy of a raw root with duplicates, boxes of all kinds, special tokens in texts, an empty answer."""
    shutil.copytree(raw, root)
    path = root / "visual_cot/metadata/gqa_cot_train.jsonl"
    first, *others = lines(path)[:6]
    side = first["width"]
    boxes = ([[side, 0, side + 9, 9]], [[-9, 5, 20, 2], [side, 0, side + 9, 9]], [[side, 0, side, 0]], [[3, 3, 3, 3]])
    odd = [{**first, "question": f"Which one is <image> {at}?", "bboxs": box} for at, box in enumerate(boxes)]
    twins = [{**row, "thought": f"Otherwise {at}."} for at, row in enumerate(others)]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*odd, *twins, {**first, "answer": " "}])
    records = json.loads((root / LLAVA).read_text(encoding="utf-8"))
    copies = [{**record, "id": "other"} for record in records[:50]]
    for at, text in enumerate(("No image <|x_3|>?", "<image>\nMore <image>?", "Behind <seg_image>\n<image>")):
        talk = [{"from": "human", "value": text}, {"from": "gpt", "value": f"Yes {at} <|a|>."}]
        copies.append({"id": at, "image": "gqa/images/12.jpg", "conversations": talk})
    (root / LLAVA).write_text(json.dumps(records + copies), encoding="utf-8")
    return root


def by_id(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def test_measure_counts_the_whole_tree(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"x" * 20_000_000)
    child = f"import pathlib; held = pathlib.Path({str(data)!r}).read_bytes() * 4; import time; time.sleep(0.2)"
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    parent = f"import subprocess, sys; [p.wait() for p in [{start}, {start}]]"
    cost = measure([sys.executable, "-c", parent], cwd=build_full.REPOSITORY)
    assert 40 <= cost.read_mb < 60
    assert cost.peak_rss_mb > 150
    assert cost.wall_s > 0.2


def test_measure_names_the_command_that_failed() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: broken"):
        measure(
            [sys.executable, "-c", "import sys; sys.stderr.write('broken'); sys.exit(3)"],
            cwd=build_full.REPOSITORY,
        )


def test_report_divides_what_it_says() -> None:
    cost = Cost(0, 10.0, 12.0, 1_000.0, 900.0, 2_000.0, 52.0, "", "")
    results = build_full.Results(
        floor=replace(cost, wall_s=8.0),
        build=cost,
        build_one=replace(cost, wall_s=16.0),
        build_half=replace(cost, peak_rss_mb=800.0),
        rowwise=replace(cost, wall_s=120.0, stdout='{"seconds": {"load": 30, "order": 10, "write": 70}}'),
        help=replace(cost, wall_s=0.2),
        rows=5,
        rows_half=2,
        input_mb=1_000.0,
        floor_mb=1.0,
        build_mb=2.0,
    )
    text = build_full.report(results, 2, "abc", "python -m bench.build_full --raw R --work W")
    for line in (
        "### Commit abc",
        "| build / floor, wall | 1.25 | <= 2.0 |",
        "| build with 1 worker / floor, wall | 2.00 |  |",
        "| row-wise / build, wall | 12.0 | >= 10 |",
        "| the same without ordering and writing (row-wise only) | 4.0 |  |",
        "Seconds of the row-wise program: load 30.0, order 10.0, write 70.0.",
        "| peak RSS, full size / half size | 1.25 | flat (about 1) |",
        "| bytes read by read(2) / input bytes | 2.00 | <= 2.2 |",
        "| the same + scratch files mapped once, upper bound | 2.05 | <= 2.2 |",
    ):
        assert line in text


@in_the_soak
def test_runner_prints_a_section_from_real_runs(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--raw", str(raw), "--raw-half", str(raw), "--work", str(tmp_path / "work"), "--rounds", "1"]
    build_full.main(arguments)
    text = capsys.readouterr().out
    assert "| row-wise / build, wall |" in text
    assert "| peak RSS, full size / half size |" in text
    assert not (tmp_path / "work/corpus").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures") / "raw"
    images_raw.make_raw(root, 50, part_bytes=1_000_000)
    return root


def test_the_three_layouts_hold_the_same_images(pictures: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in (pictures / "folder/own/images").iterdir()}
    assert len(set(files.values())) == 50
    assert 80_000 < sum(map(len, files.values())) / 50 < 130_000
    with zipfile.ZipFile(pictures / "zip/own/images.zip") as archive:
        assert {f"images/{name}": data for name, data in files.items()} == {
            n: archive.read(n) for n in archive.namelist()
        }
    parts = sorted((pictures / "tar/own").glob("images.tar.*"))
    assert {part.stat().st_size for part in parts[:-1]} == {1_000_000}
    (tmp_path / "whole.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    with tarfile.open(tmp_path / "whole.tar") as archive:
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None and data.read() == files[Path(member.name).name]
    rows = [lines(pictures / layout / "own/rows.jsonl") for layout in images_raw.LAYOUTS]
    assert rows[0] == rows[1] == rows[2]
    assert sorted(row["image"] for row in rows[0]) == sorted(3 * list(files))


def test_the_floor_of_images_copies_every_byte(pictures: Path, tmp_path: Path) -> None:
    images_peers.main(["floor", "--raw", str(pictures / "folder"), "--out", str(tmp_path / "out"), "--files", "3"])
    copied = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.bin"))
    assert copied == sum(path.stat().st_size for path in (pictures / "folder/own/images").iterdir())


@in_the_soak
def test_image_runner_prints_a_section_from_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("webdataset")
    images.main(["--work", str(tmp_path), "--images", "50", "--rounds", "1"])
    text = capsys.readouterr().out
    for name in (
        images.FLOOR,
        images.ONE,
        images.ZIP,
        images.TAR,
        images.WDS,
        images.WDS_ROWS,
        images.HF,
        images.HF_ROWS,
    ):
        assert f"| {name} |" in text
    written = {
        line.split(" | ")[0]: float(line.split(" | ")[-1].rstrip(" |"))
        for line in text.splitlines()
        if "RSS" not in line and line.count(" | ") == 4 and "---" not in line
    }
    assert written[f"| {images.ONE}"] == written[f"| {images.TAR}"]
    assert written[f"| {images.HF_ROWS}"] > 2.5 * written[f"| {images.ONE}"]
    assert "| shards / distinct bytes | 1.0" in text
    assert [path.name for path in tmp_path.iterdir()] == ["raw-50"]


def test_builds_that_differ_are_no_result() -> None:
    ran = images.Ran(Cost(0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, "", ""), 1.0, "one")
    with pytest.raises(RuntimeError, match="made corpora with 2 fingerprints"):
        images.check_same([{images.ONE: ran, images.ZIP: ran._replace(fingerprint="two")}])
