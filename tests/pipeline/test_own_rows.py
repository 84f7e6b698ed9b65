"""Own data are cut into shards, and show their progress, by their rows."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import end_to_end

from vpt_data import recipe
from vpt_data.pipeline import plan
from vpt_data.pipeline.build import open_work, prepare_all
from vpt_data.pipeline.engines import local, task
from vpt_data.pipeline.engines.task import Task
from vpt_data.pipeline.workspace import make_folders
from vpt_data.sources.row_count import count_rows
from vpt_data.upstream.rawfile import RawFile

ROWS = 12_001
RECIPE = end_to_end.OWN.replace("shards = 4\n", "").replace("rows.jsonl", "rows*")


@pytest.fixture(scope="module")
def records() -> list[dict[str, object]]:
    return end_to_end.own_rows(ROWS)


def write(folder: Path, records: list[dict[str, object]], kind: str, name: str = "rows") -> Path:
    path = folder / f"{name}.{kind}"
    if kind.startswith("csv"):
        rows = [",".join(str(row[name]) for name in ("image", "question", "answer")) for row in records]
        text = "\n".join(["image,question,answer", *rows])
    else:
        text = json.dumps(records, indent=2) if kind in ("json", "json.gz") else end_to_end.lines(records)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "json", "json.gz", "jsonl", "jsonl.gz", "parquet"])
def test_rows_are_counted_in_every_format(tmp_path: Path, records: list[dict[str, object]], kind: str) -> None:
    path = write(tmp_path, records, kind)
    assert count_rows(RawFile(path, path.name.removesuffix(".gz")), "image") == ROWS


def test_a_damaged_file_counts_as_far_as_it_goes(tmp_path: Path, records: list[dict[str, object]]) -> None:
    path = write(tmp_path, records, "jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    assert 0 < count_rows(RawFile(path, "rows.jsonl"), "image") < ROWS
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    assert count_rows(RawFile(tmp_path / "no.parquet", "no.parquet"), "image") == 0


def planned(folder: Path, *overrides: str, limit: int | None = None) -> plan.Plan:
    own = end_to_end.recipe_file(folder, RECIPE)
    return plan.make(recipe.load(str(own), overrides), folder / "raw", "reference", limit)


def test_own_data_are_cut_into_shards_by_their_rows(tmp_path: Path, records: list[dict[str, object]]) -> None:
    own = tmp_path / "raw/own"
    own.mkdir(parents=True)
    write(own, records, "jsonl")
    assert planned(tmp_path).shards == {"train": plan.shards_for(ROWS)} == {"train": 2}
    assert planned(tmp_path, limit=100).shards == {"train": 1}
    assert planned(tmp_path, "shards=7").shards == {"train": 7}
    assert planned(tmp_path, "take.mine.count=100").shards == {"train": 1}
    built = end_to_end.build(tmp_path / "own.toml", tmp_path / "raw", tmp_path / "one")
    assert len(end_to_end.shards(built)) == 2
    (own / "rows.jsonl").unlink()
    write(own, records[:5000], "jsonl.gz", "rows-1")
    write(own, records[5000:], "jsonl", "rows-2")
    other = end_to_end.build(tmp_path / "own.toml", tmp_path / "raw", tmp_path / "two", workers=2)
    assert end_to_end.shards(other) == end_to_end.shards(built), "other files, other workers: the same bytes"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """By how much the bar of a stage has moved, each time that it has; the file `moved` shows that it has."""
    moved: list[int] = []

    class Bar(task.tqdm):  # type: ignore[misc, name-defined]
        def update(self, part: float | None = 1) -> bool | None:
            if part:
                moved.append(int(part))
                (tmp_path / "moved").touch()
            return super().update(part)

    monkeypatch.setattr(task, "tqdm", Bar)
    return moved


def test_one_large_file_reports_its_progress_in_parts(
    tmp_path: Path, records: list[dict[str, object]], parts: list[int]
) -> None:
    (tmp_path / "raw/own").mkdir(parents=True)
    path = write(tmp_path / "raw/own", records * 8, "jsonl")  # a chunk is at most 8 MiB
    work = open_work(planned(tmp_path), tmp_path / "out")
    make_folders(work)
    prepare_all(work.plan, work, local.Local(None))
    assert sum(parts) == path.stat().st_size
    assert len(parts) > 2 and max(parts) < 0.8 * sum(parts)


def wait_for_bar(folder: Path, report: Callable[[int], None]) -> None:
    """A task that goes on only when the bar has shown its first part."""
    report(10)
    deadline = time.monotonic() + 60
    while not (folder / "moved").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (folder / "moved").exists()
    report(20)


def test_workers_report_parts_of_their_tasks(tmp_path: Path, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_EVERY", 0.001)
    tasks = [Task(wait_for_bar, (tmp_path,), tmp_path / f"{name}.done", 100, reports=True) for name in "ab"]
    with local.pool(2, ()) as pool:
        local.Local(pool, 2).run_all(tasks, "reading")
    assert sum(parts) == 200 and parts[0] <= 20


def test_a_task_that_reports_more_than_its_size_ends_at_its_size(tmp_path: Path) -> None:
    seen: list[int] = []

    def call(report: Callable[[int], None]) -> None:
        report(7)
        report(9)

    task.perform_in_parts(pa.__version__, Task(call, (), tmp_path / "done", 10, reports=True), seen.append)
    assert seen == [7, 3, 0]
