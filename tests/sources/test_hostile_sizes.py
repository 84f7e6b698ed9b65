"""Files that are far larger than memory, or become so: one sentence or a drop, never an end without a word.

With VPT_SOAK=1 (`make soak`) every reader also meets files of some 20 MB that expand to 20 GB, with the limits as they
are shipped, in 2 GB of addresses; without, the limits are smaller.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.own_data import chunks, drops_of, failure, write
from helpers.soak import SOAK
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.errors import RawError
from vpt_data.images.policy import Failure
from vpt_data.images.root import FoundImage, ImageRoot
from vpt_data.schema import Reason
from vpt_data.sources import SOURCES, row_count
from vpt_data.sources.coco_boxes import read_instances
from vpt_data.sources.reading import tabular
from vpt_data.sources.reading.json_records import read_records
from vpt_data.upstream import rawfile
from vpt_data.upstream.rawfile import RawFile

#: How many bytes of addresses the readers have, and of how many members of 16 MiB a bomb is made.
ADDRESSES, MEMBERS = (2 << 30, 1250) if SOAK else (1 << 30, 80)

#: Run in a process of its own with so many addresses: every reader, over every file of its jobs, with each content.
CHILD = """
import resource, sys
from pathlib import Path
from vpt_data.errors import VptDataError
from vpt_data.pipeline import reading
from vpt_data.pipeline.workspace import PreparedFiles
from vpt_data.images.root import ImageRoot
from vpt_data.sources import SOURCES, locate
from vpt_data.sources.row_count import count_rows
from vpt_data.take import Take
from vpt_data.upstream import rawfile
from vpt_data.upstream.catalog import upstreams
import msgspec, pycocotools.coco

if sys.argv[2] == "limited":
    rawfile.MOST_TIMES, rawfile.ALWAYS_BYTES = 1, 2 << 20
elif sys.argv[2] == "unlimited":
    rawfile.MOST_TIMES = 2000
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
root = Path(sys.argv[1])
base = {"source": "table", "template": "region", "task": "general", "images": "own"}
takes = {
    "coco_boxes": dict(base, source="coco_boxes", files=["rows.jsonl"], instances="rows.json"),
    "csv": dict(base, files=["rows.csv"]),
    "json": dict(base, files=["rows.json"]),
    "jsonl": dict(base, files=["rows.jsonl"]),
    "parquet": dict(base, files=["rows.parquet"]),
}
jobs = []
for name, take in takes.items():
    jobs += locate.own_files(root, name, msgspec.convert(take, Take)).jobs
for source, upstream in upstreams().source.items() if sys.argv[2] != "unlimited" else ():
    if source not in SOURCES:
        continue
    dataset, files = next(iter(upstream.dataset.items()))
    raw = rawfile.RawFile(root / "rows.json.gz", "rows.json")
    jobs.append(locate.Job(source, dataset, {role: raw for role in files.places}))
settings = reading.ReadSettings(root, 0, 1, True)
steps = [lambda job: reading.prepare(job, PreparedFiles(root / "out" / "x"), settings)]
if sys.argv[2] == "shipped":
    steps.append(lambda job: count_rows(job.rows, "image"))
for job in jobs:
    for step in steps:
        try:
            step(job)
            print(job.source, "read")
        except VptDataError as error:
            print(job.source, "refused:", error)
for path in ("own/images/a.png", "own/packed/b.png"):
    print("image", ImageRoot(root).load(path, None, None))
"""

CONTENTS = {
    "zeros": (b"", b"\0"),
    "an endless text": (b'[{"image": "', b"x"),
    "an endless text behind a record": (b'{"image": "a.png", "question": "q", "answer": "a"}\n{"image": "', b"x"),
    "an endless list": (b"[", b" "),
    "endless brackets": (b"[", b"["),
    "endless lines": (b"image,question,answer\n", b"\n"),
    "an endless cell": (b'image,question,answer\n"', b"x"),
}
#: What is right but for its length takes longer to read.
RIGHT = {
    "records": (b"", b'{"image": "a.png", "question": "q", "answer": "a"}\n'),
    "records of an array": (b'[{"image": "a.png"}', b', {"image": "a.png", "question": "q", "answer": "a"}\n'),
    "rows": (b"image,question,answer\n", b"a.png,q,a\n"),
    "rows of a list": (b"", b"1 2 3 4 5\n"),
}


def bomb(path: Path, head: bytes, filler: bytes) -> None:
    """A gzip file of 1 MB or more that becomes 1.3 GB, in the soak 20 GB, in many members."""
    path.write_bytes(gzip.compress(head) + gzip.compress(filler * ((16 << 20) // len(filler))) * MEMBERS)


@pytest.fixture(scope="module")
def giant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of a few MB whose one row group becomes 1 GB, in the soak 20 GB."""
    path = tmp_path_factory.mktemp("giant") / "rows.parquet"
    text, blocks = pa.array(["x" * 1_000] * 10_000), 2_000 if SOAK else 100
    table = pa.table({name: pa.chunked_array([text] * blocks) for name in ("image", "question", "answer")})
    pq.write_table(table, path, row_group_size=len(table), compression="zstd")
    return path


def outcomes(folder: Path, giant: Path, content: str, limit: str) -> list[str]:
    for name in ("rows.json", "rows.jsonl", "rows.csv"):
        bomb(folder / f"{name}.gz", *(CONTENTS | RIGHT)[content])
    (folder / "rows.parquet").symlink_to(giant)
    (folder / "out").mkdir()
    (folder / "own/images").mkdir(parents=True)
    with (folder / "own/images/a.png").open("wb") as sparse:
        sparse.truncate(20 << 30)
    with zipfile.ZipFile(folder / "own/packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("b.png", bytes((1 << 30) - 1 if SOAK else 1 << 20))
    command = [sys.executable, "-c", CHILD, str(folder), limit, str(ADDRESSES)]
    env = {**os.environ, "OMP_NUM_THREADS": "2"}  # each thread takes addresses
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=7_200 if SOAK else 300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = done.stdout.splitlines()
    images = [outcome for outcome in found if outcome.startswith("image ")]
    assert len(images) == 2 and all("bad_image" in outcome for outcome in images), images
    return [outcome for outcome in found if outcome not in images]


@pytest.mark.parametrize("content", CONTENTS)
def test_every_reader_stops_at_a_file_that_expands_without_end(tmp_path: Path, giant: Path, content: str) -> None:
    found = outcomes(tmp_path, giant, content, "limited")
    assert {outcome.split()[0] for outcome in found} == set(SOURCES)
    assert all(outcome.endswith((" read", ".")) for outcome in found), found


def test_without_that_limit_there_is_a_sentence_as_well(tmp_path: Path, giant: Path) -> None:
    """What has to be read whole does not fit; what is read in pieces gives up at an endless record."""
    found = outcomes(tmp_path, giant, "an endless text", "unlimited")
    assert any("has to be kept in memory as a whole, and there is too little" in outcome for outcome in found), found
    assert all(outcome.endswith((" read", ".")) for outcome in found), found


@pytest.mark.skipif(not SOAK, reason="takes hours; VPT_SOAK=1 runs it")
@pytest.mark.parametrize("content", CONTENTS | RIGHT)
def test_twenty_gigabytes_in_two(tmp_path: Path, giant: Path, content: str) -> None:
    found = outcomes(tmp_path, giant, content, "shipped")
    assert {outcome.split()[0] for outcome in found} == set(SOURCES)
    assert all(outcome.endswith((" read", ".")) for outcome in found), found


def test_what_is_kept_in_memory_names_the_file_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("vpt_data.sources.coco_boxes.content", full)
    with pytest.raises(RawError) as caught:
        read_instances(write(tmp_path, "boxes.json", "{}"))
    assert str(caught.value) == (
        "boxes.json: it has to be kept in memory as a whole, and there is too little; run on a larger machine."
    )


def test_a_parquet_file_that_expands_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is stored once, and stands for 20,000."""
    monkeypatch.setattr(rawfile, "ALWAYS_BYTES", 1_000_000)
    rows = pa.table({name: ["x" * 1_000] * 20_000 for name in ("image", "question", "answer")})
    pq.write_table(rows, tmp_path / "own.parquet")
    raw = RawFile(tmp_path / "own.parquet", "own.parquet")
    assert failure(RawError, raw) == (
        f"own.parquet: it expands to more than {max(1_000_000, 200 * raw.path.stat().st_size):,} bytes, which no "
        "annotations do; if it is what it should be, write it without compression and dictionaries."
    )
    pq.write_table(rows, raw.path, compression="none", use_dictionary=False)
    assert sum(len(chunk.row) for chunk in chunks(raw)) == 20_000


def test_the_categories_of_a_column_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pandas stores them: each batch has all categories beside it, and holds no more text for that."""
    monkeypatch.setattr(rawfile, "ALWAYS_BYTES", 4_000_000)
    monkeypatch.setattr(rawfile, "MOST_TIMES", 1)
    names = pa.array([f"folder/{number:036d}.jpg" for number in range(10_000)]).dictionary_encode()
    rows = pa.table({"image": pa.concat_arrays([names] * 3), "question": ["Which?"] * 30_000, "answer": ["a"] * 30_000})
    pq.write_table(rows, tmp_path / "own.parquet")
    assert sum(batch.nbytes for batch in pq.ParquetFile(tmp_path / "own.parquet").iter_batches(1024)) > 10_000_000
    found = chunks(RawFile(tmp_path / "own.parquet", "own.parquet"))
    assert [len(chunk.row) for chunk in found] == [tabular.STRETCH, 30_000 - tabular.STRETCH]


def test_long_rows_of_a_parquet_file_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "STRETCH_BYTES", 1_000_000)
    rows = pa.table({name: ["x" * 1_000] * 20_000 for name in ("image", "question", "answer")})
    pq.write_table(rows, tmp_path / "own.parquet", compression="none", use_dictionary=False)
    found = chunks(RawFile(tmp_path / "own.parquet", "own.parquet"))
    assert [len(chunk.row) for chunk in found[:2]] == [1024, 1024]
    assert sum(len(chunk.row) for chunk in found) == 20_000


@given(
    st.lists(st.sampled_from([b'"image"', b": ", b" " * 99, b"\n:", b'"a", ', b'"imag', b'e":1'])), st.integers(1, 40)
)
def test_keys_are_counted_wherever_the_blocks_of_a_file_end(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], block: int
) -> None:
    raw = write(tmp_path_factory.mktemp("keys"), "own.json", b"".join(parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_count, "_BLOCK", block)
        found = row_count.count_rows(raw, "image")
    assert found == len(re.findall(rb'"image"\s*:', b"".join(parts)))


def test_keys_are_counted_in_little_memory(tmp_path: Path) -> None:
    raw = write(tmp_path, "own.json.gz", gzip.compress(b'[{"image": "' + b"x" * (64 << 20)))
    tracemalloc.start()
    assert row_count.count_rows(raw, "image") == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48 << 20


def test_an_image_that_does_not_fit_into_memory_is_a_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(found: FoundImage) -> bytes:
        raise MemoryError

    write(tmp_path, "own/a.png", b"x")
    monkeypatch.setattr(FoundImage, "read", full)
    found = ImageRoot(tmp_path).load("own/a.png", None, None)
    assert found == Failure(Reason.BAD_IMAGE, "own/a.png: it takes more memory than there is")


def test_the_limit_names_the_file_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rawfile, "ALWAYS_BYTES", 1_000_000)
    rows = b"".join(b'{"image": "%d.png", "question": "q", "answer": "a"}\n' % n for n in range(20_000))
    raw = write(tmp_path, "own.jsonl.gz", gzip.compress(rows))
    assert sum(len(chunk.row) for chunk in chunks(raw)) == 20_000
    monkeypatch.setattr(rawfile, "MOST_TIMES", 2)
    assert failure(RawError, raw) == (
        "own.jsonl: it expands to more than 1,000,000 bytes, which no annotations do; "
        "if it is what it should be, decompress it and remove the .gz file."
    )


def test_a_sparse_file_is_not_hashed_when_it_is_refused(tmp_path: Path) -> None:
    """A terabyte of zeros that takes no room: refused by its first byte."""
    raw = write(tmp_path, "own.jsonl", b"")
    with raw.path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(RawError, match="the file starts with"):
        list(read_records(RawFile(raw.path, "own.jsonl"), dict))


def test_an_endless_line_of_a_table_is_one_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt_data.sources.reading.tabular.MAX_RECORD_BYTES", 1_000)
    text = "image,question,answer\na.png,q,a\n" + "x" * 5_000
    found = chunks(write(tmp_path, "own.csv", text))
    assert sum(len(chunk.row) for chunk in found) == 1
    assert drops_of(found) == [
        (1, 3, "truncated: no line ends within 1000 characters, the rest of the file is not read")
    ]


def test_a_quote_that_is_not_closed_says_which_lines_it_took(tmp_path: Path) -> None:
    """A quote is open from line 16 to 26, where the next one closes it; the lines behind keep their numbers."""
    rows = [f"{n}.png,q{n},a{n}" for n in range(2, 41)]
    rows[14] = '16.png,"q16,a16'
    rows[24] = '26.png,"q26",a26'
    rows[36] = "38.png,q38"
    found = chunks(write(tmp_path, "own.csv", "image,question,answer\n" + "\n".join(rows) + "\n"))
    lines = [line for chunk in found if chunk.line is not None for line in chunk.line.tolist()]
    assert lines == [line for line in range(2, 41) if line not in {*range(16, 27), 38}]
    (_, first, what), second = drops_of(found)
    assert first == 16
    assert what.endswith("; the record runs from line 16 to 26, look for a quote that is not closed")
    assert second == (len(lines) - 1, 38, "2 cells, expected 3 as in the header")
