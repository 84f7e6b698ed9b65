"""A JSON array that is read in windows: they are cut between records, never inside one.

The traps are lists inside a record whose objects begin with the same key as the records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.sources.reading.json_records import read_records
from vpt_data.upstream import rawfile
from vpt_data.upstream.rawfile import RawFile

LAYOUTS = st.fixed_dictionaries({"indent": st.sampled_from([None, 1, "\t"]), "ensure_ascii": st.booleans()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windows")


nested = st.builds(
    lambda number, objects: {"id": number, "objects": [{"id": one, "box": [1, 2]} for one in objects], "b": "}, {"},
    st.integers(0, 99),
    st.lists(st.integers(0, 9), max_size=9),
)


@given(st.lists(nested, min_size=2, max_size=40), LAYOUTS, st.integers(60, 900))
def test_windows_are_cut_between_records_and_not_inside_one(
    folder: Path, items: list[dict[str, Any]], layout: dict[str, Any], window: int
) -> None:
    path = folder / "x.json"
    path.write_text(json.dumps(items, **layout))
    with mock.patch.object(rawfile, "WINDOW_BYTES", window):
        windows = RawFile(path, "x.json").windows()
    parts = [part for one in windows for part in read_records(one, dict[str, Any])]
    assert [part.bad for part in parts if part.bad] == []
    assert [value for part in parts for value in part.values] == items


def test_a_file_is_cut_although_its_records_hold_such_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first record holds one object: by itself it does not show that the border occurs inside records as well."""
    monkeypatch.setattr(rawfile, "WINDOW_BYTES", 1_000)
    objects = [[{"id": 1}], *([{"id": n, "text": "x" * 200} for n in range(9)] for _ in range(20))]
    (tmp_path / "x.json").write_text(json.dumps([{"id": n, "objects": each} for n, each in enumerate(objects)]))
    windows = RawFile(tmp_path / "x.json", "x.json").windows()
    assert len(windows) > 10
    found = [part for one in windows for part in read_records(one, dict[str, Any])]
    assert [value["id"] for part in found for value in part.values] == list(range(21))
    assert [part.bad for part in found if part.bad] == []
