"""What every reader in SOURCES promises: all records accounted for, whatever happened to the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from vpt_data import recipe
from vpt_data.errors import VptDataError
from vpt_data.schema import ANNOTATION, Reason
from vpt_data.sources import SHIPPED, SOURCES, locate
from vpt_data.sources.base import Drop, Job, RawFile

#: A data set of each source with fixed places that the sample has; sources of own files have takes of its recipe.
DATASETS = {
    "aurora_depth": ["maps", "points"],
    "cub": [""],
    "llava": [""],
    "llava_pretrain": ["blip_laion_cc_sbu_558k"],
    "pope": ["coco_popular"],
    "viscot": ["docvqa", "gqa"],
    "viscot_benchmark": ["docvqa"],
    "vsr": ["random_train"],
}
TAKES = {"table": ["own_receipts", "own_signs"], "coco_boxes": ["own_shelves"]}
EVERY = [(source, name) for source, names in sorted((DATASETS | TAKES).items()) for name in names]

Damage = Callable[[bytes, random.Random], bytes]


class Read(NamedTuple):
    """What a reader made of a file: record numbers of annotations and of drops."""

    rows: list[int]
    drops: list[Drop]

    @property
    def records(self) -> list[int]:
        return sorted([*self.rows, *(drop.row for drop in self.drops)])


def job(root: Path, source: str, name: str) -> Job:
    """The reader's work on its part of a sample root."""
    if source in TAKES:
        take = recipe.load("sample").take[name]
        (found,) = locate.own_files(root, name, take).jobs
    else:
        datasets = None if name == "" else [name]
        found = locate.find(root, source, datasets).jobs[0]
    return found


def read(given: Job) -> Read:
    """Read everything and look at the form of each chunk."""
    rows: list[int] = []
    drops: list[Drop] = []
    for chunk in SOURCES[given.source].read(given):
        assert chunk.annotations.schema.equals(ANNOTATION)
        chunk.annotations.validate(full=True)
        assert len(chunk.row) == chunk.annotations.num_rows
        assert chunk.form is None or set(chunk.form.to_pylist()) <= set(SOURCES[given.source].forms)
        assert set(chunk.annotations["source"].to_pylist()) <= {given.source}
        assert set(chunk.annotations["region_status"].to_pylist()) <= {"given", "none_needed", "unknown"}
        turns = [turns for turns in chunk.annotations["turns"].to_pylist() if turns is not None]
        assert len(turns) == (len(chunk.row) if SOURCES[given.source].conversations else 0)
        rows.extend(chunk.row.tolist())
        drops.extend(chunk.drops)
    assert all(drop.reason is Reason.MALFORMED and drop.detail for drop in drops)
    return Read(rows, drops)


def count(path: Path) -> int:
    """Records of a raw file, counted with nothing but the format."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return len(list(csv.reader(io.StringIO(text)))) - 1
    if text.lstrip().startswith("["):
        return len(json.loads(text))
    return sum(bool(line.strip()) for line in text.splitlines())


def damaged(given: Job, role: str, folder: Path, damage: Damage, seed: int) -> Job:
    """The same work with a damaged copy of one of its files."""
    file = given.files[role]
    copy = folder / f"{seed}-{Path(file.name).name}"
    copy.write_bytes(damage(file.path.read_bytes(), random.Random(seed)))
    return replace(given, files={**given.files, role: RawFile(copy, file.name)})


def test_every_source_is_looked_at() -> None:
    """Here, if the sample has it, or in a test file of its own."""
    own = {path.stem.removeprefix("test_sources_") for path in Path(__file__).parents[1].glob("**/test_sources_*.py")}
    assert set(DATASETS | TAKES) <= set(SHIPPED) <= set(DATASETS | TAKES) | own


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_the_docstring_tells_what_the_format_is(source: str) -> None:
    text = sys.modules[SOURCES[source].read.__module__].__doc__ or ""
    heads = re.findall(r"^([A-Z][a-z]+) {2,}\S", text, re.MULTILINE)
    assert {"Upstream", "Boxes", "Rows", "Defects"} <= set(heads)
    assert {"Layout", "Files"} & set(heads)
    if source not in TAKES:
        assert re.search(r"Licence|Apache-2\.0|non-commercial", text)


@pytest.mark.parametrize(("source", "name"), EVERY)
def test_every_record_is_accounted_for(sample_root: Path, source: str, name: str) -> None:
    given = job(sample_root, source, name)
    found = read(given)
    assert found.records == list(range(count(given.rows.path)))
    assert found.rows
    assert all(file.sha256 for file in given.files.values())


@pytest.mark.parametrize(("source", "name"), EVERY)
def test_reading_twice_gives_the_same(sample_root: Path, source: str, name: str) -> None:
    given = job(sample_root, source, name)
    first, second = ([c.annotations for c in SOURCES[source].read(given)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("source", "name"), EVERY)
def test_a_limit_is_a_beginning(sample_root: Path, source: str, name: str) -> None:
    whole, part = read(job(sample_root, source, name)), read(replace(job(sample_root, source, name), limit=7))
    assert part.records == list(range(7))
    assert part.rows == [row for row in whole.rows if row < 7]


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def garbage(data: bytes, chance: random.Random) -> bytes:
    """One line that is nothing, somewhere between two."""
    lines = data.splitlines(keepends=True)
    lines.insert(chance.randrange(1, len(lines) + 1), b'\x00{"a": [}\xff\xfe,,,"\n')
    return b"".join(lines)


def flip(data: bytes, chance: random.Random) -> bytes:
    """One byte that is another."""
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :]


def half_a_gzip(data: bytes, chance: random.Random) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return packed[: chance.randrange(20, len(packed) - 1)]


@pytest.mark.parametrize("damage", [truncate, garbage, flip, half_a_gzip])
@pytest.mark.parametrize(("source", "name"), EVERY)
def test_damage_to_the_rows_loses_nothing_in_silence(
    sample_root: Path, tmp_path: Path, source: str, name: str, damage: Damage
) -> None:
    """A damaged file is refused in one sentence, or its records are numbered without a gap, the bad ones dropped."""
    given = job(sample_root, source, name)
    whole = read(given)
    for seed in range(6):
        broken = damaged(given, "rows", tmp_path, damage, seed)
        try:
            found = read(broken)
        except VptDataError as error:
            assert given.rows.name in str(error)
            continue
        assert found.records == list(range(len(found.records)))
        if damage is garbage and is_lines(given.rows.path):
            assert len(found.records) == len(whole.records) + 1
            assert len(found.drops) == len(whole.drops) + 1
        elif damage is half_a_gzip or (damage is truncate and given.rows.path.suffix in {".json", ".jsonl"}):
            complete = complete_records(broken.rows.path, damage)
            assert len(found.records) >= complete
            assert found.drops or len(found.records) == complete


def is_lines(path: Path) -> bool:
    return path.suffix == ".jsonl" or (path.suffix == ".json" and not path.read_bytes().startswith(b"["))


def complete_records(path: Path, damage: Damage) -> int:
    """How many whole records lie before the damage; a file of lines only, others are not counted."""
    if damage is half_a_gzip or path.read_bytes()[:1] == b"[":
        return 0
    *lines, last = path.read_bytes().split(b"\n")
    return len(lines) + last.endswith(b"}")  # no record of the sample ends with two of them


PARTNERS = [
    (source, name, role)
    for source, name, roles in (
        ("coco_boxes", "own_shelves", ["boxes"]),
        ("cub", "", ["boxes", "labels", "classes", "split", "attributes", "attribute_labels"]),
        ("viscot_benchmark", "docvqa", ["answers"]),
        ("vsr", "random_train", ["instances_train"]),
    )
    for role in roles
]


@pytest.mark.parametrize("damage", [truncate, garbage, flip])
@pytest.mark.parametrize(("source", "name", "role"), PARTNERS)
def test_damage_to_a_partner_loses_nothing_in_silence(
    sample_root: Path, tmp_path: Path, source: str, name: str, role: str, damage: Damage
) -> None:
    given = job(sample_root, source, name)
    whole = read(given)
    for seed in range(3):
        try:
            found = read(damaged(given, role, tmp_path, damage, seed))
        except VptDataError as error:
            assert given.files[role].name in str(error)
            continue
        assert found.records == whole.records


@pytest.mark.parametrize(("source", "name"), EVERY)
@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\x1f\x8b", b"[", b"{", b"[]", b"null"])
def test_a_file_of_nothing_is_refused_or_empty(
    sample_root: Path, tmp_path: Path, source: str, name: str, content: bytes
) -> None:
    given = job(sample_root, source, name)
    emptied = damaged(given, "rows", tmp_path, lambda *_: content, 0)
    try:
        found = read(emptied)
    except VptDataError as error:
        assert given.rows.name in str(error)
        return
    assert found.rows == []
    assert found.drops or content == b"[]"


def test_partners_are_those_of_the_manifest(sample_root: Path) -> None:
    found = {(s, n, role) for s, n in EVERY for role in job(sample_root, s, n).files if role != "rows"}
    assert found == set(PARTNERS)
