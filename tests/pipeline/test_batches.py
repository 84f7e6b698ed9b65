"""The work files of pass 1: batches of whole partitions, few of them, and read back without files that stay open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import end_to_end
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import recipe
from vpt_data.pipeline import open_files, plan, reading
from vpt_data.pipeline.build import open_work, prepare_all
from vpt_data.pipeline.engines.local import Local
from vpt_data.pipeline.workspace import Work, make_folders


@given(counts=st.lists(st.integers(0, 200), max_size=60))
def test_batches_hold_whole_partitions_and_are_not_small(counts: list[int]) -> None:
    partition = np.repeat(np.arange(len(counts)), counts)
    flush = reading.batches_of(partition)
    assert sum(flush.rows) == len(partition) and all(flush.rows)
    assert all(rows >= reading.BATCH_ROWS for rows in flush.rows[:-1])
    ends = np.cumsum(flush.rows).tolist()
    for start, first in zip([0, *ends], flush.partitions, strict=False):
        assert partition[start] == first
        assert start == 0 or partition[start - 1] < first, "no partition is in two batches"


def prepared(tmp_path: Path, files: int, shards: int) -> Work:
    raw = end_to_end.own_root(tmp_path / "raw", [])
    for number in range(files):
        (raw / f"own/rows-{number}.jsonl").write_text(end_to_end.lines(end_to_end.own_rows(6, 6 * number)))
    own = end_to_end.recipe_file(tmp_path, end_to_end.OWN.replace("rows.jsonl", "rows-*.jsonl"))
    planned = plan.make(recipe.load(str(own), [f"shards={shards}"]), raw, "reference", None)
    work = open_work(planned, tmp_path / "out")
    make_folders(work)
    prepare_all(planned, work, Local(None))
    open_files.find_offsets(work)
    return work


def folder(parent: Path, shards: int) -> Path:
    made = parent / str(shards)
    made.mkdir()
    return made


def test_three_hundred_inputs_keep_no_file_open_and_are_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepared(tmp_path, files=300, shards=4)
    opened: list[object] = []
    original = pa.ipc.open_file

    def counting(source: object) -> object:
        opened.append(source)
        return original(source)

    monkeypatch.setattr(pa.ipc, "open_file", counting)
    mine = Path("/proc/self/fd")
    before = len(list(mine.iterdir())) if mine.is_dir() else 0
    rows = [sum(len(part.table) for part in open_files.index(work, number, main=True)) for number in range(4)]
    rows += [sum(len(part.table) for part in open_files.index(work, number, main=True)) for number in range(4)]
    assert sum(rows) == 2 * 300 * 6
    assert len(opened) == 300
    if before:
        assert len(list(mine.iterdir())) <= before + 1


def test_headers_do_not_outweigh_the_rows_at_many_partitions(tmp_path: Path) -> None:
    few, many = (prepared(folder(tmp_path, shards), files=1, shards=shards) for shards in (1, 16_384))
    assert (few.plan.partitions, many.plan.partitions) == (1, 2048)
    sizes = [work.prepared(0).annotations.stat().st_size for work in (few, many)]
    assert sizes[1] <= 1.1 * sizes[0]
    found = [part for number in range(2048) for part in open_files.index(many, number, main=True)]
    assert sum(len(part.table) for part in found) == 6
