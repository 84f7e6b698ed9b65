"""Own data are cut into shards, and show their progress, by their rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import end_to_end

from vpt_data import recipe
from vpt_data.pipeline import plan, reading
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


def test_one_large_file_reports_its_progress_in_parts(
    tmp_path: Path, records: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw/own").mkdir(parents=True)
    path = write(tmp_path / "raw/own", records * 8, "jsonl")  # a chunk is at most 8 MiB
    work = open_work(planned(tmp_path), tmp_path / "out")
    make_folders(work)
    parts: list[int] = []

    class Bar(task.tqdm):  # type: ignore[misc, name-defined]
        def update(self, part: float | None = 1) -> bool | None:
            parts.append(int(part or 0))
            return super().update(part)

    monkeypatch.setattr(task, "tqdm", Bar)
    prepare_all(work.plan, work, local.Local(None))
    assert sum(parts) == path.stat().st_size
    assert len(parts) > 2 and max(parts) < 0.8 * sum(parts)


def test_a_task_that_reports_more_than_its_size_ends_at_its_size(tmp_path: Path) -> None:
    seen: list[float] = []

    class Bar:
        def update(self, part: float) -> None:
            seen.append(part)

    def call(report: object) -> None:
        report(7)  # type: ignore[operator]
        report(9)  # type: ignore[operator]

    task.perform_here(Task(call, (), tmp_path / "done", 10, reports=True), Bar())  # type: ignore[arg-type]
    assert seen == [7, 3, 0]
    assert reading.prepare.__doc__
