"""Files that are far larger than memory, or become so: one sentence or a drop, never an end without a word."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.own_data import chunks, drops_of, failure, write

from vpt_data.errors import RawError
from vpt_data.sources import SOURCES
from vpt_data.sources.reading.json_records import read_records
from vpt_data.upstream import rawfile
from vpt_data.upstream.rawfile import RawFile

#: Run in a process of its own with 2 GB of addresses: every reader, over every file of its jobs, with each content.
CHILD = """
import resource, sys
from pathlib import Path
from vpt_data.errors import VptDataError
from vpt_data.pipeline import reading
from vpt_data.pipeline.workspace import PreparedFiles
from vpt_data.sources import SOURCES, locate
from vpt_data.take import Take
from vpt_data.upstream import rawfile
from vpt_data.upstream.catalog import upstreams
import msgspec, pycocotools.coco

if sys.argv[2] == "limited":
    rawfile.MOST_TIMES, rawfile.ALWAYS_BYTES = 1, 8 << 20
else:
    rawfile.MOST_TIMES = 2000
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
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
for source, upstream in upstreams().source.items() if sys.argv[2] == "limited" else ():
    if source not in SOURCES:
        continue
    dataset, files = next(iter(upstream.dataset.items()))
    raw = rawfile.RawFile(root / "rows.json.gz", "rows.json")
    jobs.append(locate.Job(source, dataset, {role: raw for role in files.places}))
settings = reading.ReadSettings(root, 0, 1, True)
for job in jobs:
    try:
        reading.prepare(job, PreparedFiles(root / "out" / "x"), settings)
        print(job.source, "read")
    except VptDataError as error:
        print(job.source, "refused:", error)
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


def bomb(path: Path, head: bytes, filler: bytes) -> None:
    """A gzip file of 3 MB that becomes 3 GB, in many members."""
    path.write_bytes(gzip.compress(head) + gzip.compress(filler * (16 << 20)) * 190)


def outcomes(folder: Path, content: str, limit: str) -> list[str]:
    for name in ("rows.json", "rows.jsonl", "rows.csv"):
        bomb(folder / f"{name}.gz", *CONTENTS[content])
    (folder / "rows.parquet").write_bytes((folder / "rows.json.gz").read_bytes())
    (folder / "out").mkdir()
    command = [sys.executable, "-c", CHILD, str(folder), limit]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("content", CONTENTS)
def test_every_reader_stops_at_a_file_that_expands_without_end(tmp_path: Path, content: str) -> None:
    found = outcomes(tmp_path, content, "limited")
    assert {outcome.split()[0] for outcome in found} == set(SOURCES)
    assert all(outcome.endswith((" read", ".")) for outcome in found), found


def test_without_that_limit_there_is_a_sentence_as_well(tmp_path: Path) -> None:
    """What has to be read whole does not fit; what is read in pieces gives up at an endless record."""
    found = outcomes(tmp_path, "an endless text", "unlimited")
    assert any("takes more memory than there is; split the file" in outcome for outcome in found), found
    assert all(outcome.endswith((" read", ".")) for outcome in found), found


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
