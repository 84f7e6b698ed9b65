"""The floor: parse the same files with types, put the text straight into Arrow, write SAMPLE columns.

It does: read every file of a raw root once in chunks, decode each record with a typed `msgspec` decoder,
fill every SAMPLE column with what was parsed (or a constant of about the right length), write with the
build's own writer options. It does not: prompts, cells, crops, unions, ids by hash, duplicates, exclusion,
quotas by hash, order, drops, origins, manifest, card, fingerprint, fsync, sha256 of inputs; and it trusts
its input. So one process can hardly do less, and a build's ratio to it is the price of being right. One
process, one thread of Python; the collector is off.

Which rows: all Visual-CoT training rows; LLaVA's image rows in file order until the recipe's counts are
full, the first turn of COCO and GQA rows, whole dialogues of the rest; text-only and benchmark records are
parsed and not written.

`python -m bench.floor --raw DIR --out FILE.parquet` prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data.corpus.shards import writer_options
from vpt_data.schema import SAMPLE

CHUNK = 16 << 20
GROUP_ROWS = 65_536
RECORD_START = b', {"id"'  # inside a JSON string the quote would be escaped, so this is always a record's start
LOOK_TOKENS = "<|region_token_start|><|x_0|><|y_0|><|x_7|><|y_7|><|region_token_end|>"
QUOTAS = {"coco": 212_000, "gqa": 71_000, "rest": 307_000}


class Metadata(msgspec.Struct, gc=False):
    question: str
    answer: str
    image: str
    width: int
    height: int
    bboxs: list[tuple[float, float, float, float]]
    dataset: str
    split: str
    possible_answers: list[str] = []
    reasoning: msgspec.Raw = msgspec.Raw(b"")
    thought: str = ""
    full_answer: str = ""


class Turn(msgspec.Struct, gc=False, rename={"role": "from"}):
    role: Literal["human", "gpt", "system"]
    value: str


class Record(msgspec.Struct, gc=False):
    id: str | int
    conversations: list[Turn]
    image: str | None = None


class Detection(msgspec.Struct, gc=False):
    img_path: str
    expression: str
    bbox: tuple[float, float, float, float]
    width: int
    height: int


class Answered(msgspec.Struct, gc=False):
    question_id: int
    image: list[str]
    conversations: list[Turn]


class Pope(msgspec.Struct, gc=False):
    question_id: int
    image: str
    text: str
    label: str


class Clock:
    """Seconds and input bytes by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    """Run the floor and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    print(json.dumps(run_floor(args.raw, args.out)))
    return 0


def run_floor(raw: Path, out: Path) -> dict[str, Any]:
    """Parse the root and write one Parquet file; returns rows, bytes, seconds by stage and input MB/s."""
    out.parent.mkdir(parents=True, exist_ok=True)
    clock, start = Clock(), time.perf_counter()
    gc.disable()
    try:
        with pq.ParquetWriter(out, SAMPLE, **writer_options(SAMPLE)) as writer:
            groups = _Groups(writer, clock)
            _parse_evaluation(raw, clock)
            for path in sorted((raw / "visual_cot/metadata").glob("*_cot_train.jsonl")):
                _write_metadata(path, groups, clock)
            _write_llava(raw / "llava/llava_v1_5_mix665k.json", groups, clock)
            groups.flush()
    finally:
        gc.enable()
    total = time.perf_counter() - start
    input_bytes = sum(path.stat().st_size for path in raw.rglob("*.json*"))
    return {
        "rows": groups.rows,
        "input_bytes": input_bytes,
        "output_bytes": out.stat().st_size,
        "total_s": round(total, 3),
        "stages_s": {stage: round(value, 3) for stage, value in clock.seconds.items()},
        "input_mb_per_s": {
            stage: round(input_bytes / 1e6 / max(value, 1e-9))
            for stage, value in (clock.seconds | {"total": total}).items()
            if stage != "evaluation"
        },
    }


class _Groups:
    """Collects tables and writes them in row groups of GROUP_ROWS."""

    def __init__(self, writer: pq.ParquetWriter, clock: Clock) -> None:
        self.writer, self.clock = writer, clock
        self.tables: list[pa.Table] = []
        self.pending = self.rows = 0

    def add(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        self.tables.append(table)
        self.pending += table.num_rows
        if self.pending >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.pending:
            with self.clock("write"):
                self.writer.write_table(pa.concat_tables(self.tables), row_group_size=self.pending)
        self.rows += self.pending
        self.tables, self.pending = [], 0


def _pieces(path: Path, mark: bytes, clock: Clock) -> Iterator[bytes]:
    """The file in chunks cut just before the last `mark`; a line mark stays with what precedes it."""
    rest = b""
    with path.open("rb", buffering=0) as file:
        while True:
            with clock("read"):
                block = file.read(CHUNK)
            if not block:
                break
            block = rest + block
            cut = block.rfind(mark)
            if cut < 0:
                rest = block
                continue
            rest = block[cut:]
            yield block[:cut]
    yield rest


def _parse_evaluation(raw: Path, clock: Clock) -> None:
    """Benchmark and POPE files: parsed only."""
    with clock("evaluation"):
        for path in sorted((raw / "visual_cot/viscot_benchmark/benchmark_det").glob("*.jsonl")):
            msgspec.json.Decoder(Detection).decode_lines(path.read_bytes())
        for path in sorted((raw / "visual_cot/viscot_benchmark/benchmark").glob("*.json")):
            msgspec.json.decode(path.read_bytes(), type=list[Answered])
        for path in sorted((raw / "pope/coco").glob("*.json")):
            msgspec.json.Decoder(Pope).decode_lines(path.read_bytes())


def _write_metadata(path: Path, groups: _Groups, clock: Clock) -> None:
    decoder = msgspec.json.Decoder(Metadata)
    for piece in _pieces(path, b"\n", clock):
        with clock("parse"):
            rows = decoder.decode_lines(piece)
        with clock("arrow"):
            table = metadata_table(rows)
        groups.add(table)


def _write_llava(path: Path, groups: _Groups, clock: Clock) -> None:
    decoder = msgspec.json.Decoder(list[Record])
    room = dict(QUOTAS)
    for piece in _pieces(path, RECORD_START, clock):
        body = b"[" + piece[2 if piece.startswith(b", ") else 1 :].rstrip()
        with clock("parse"):
            records = decoder.decode(body if body.endswith(b"}]}]") else body + b"]")
        with clock("arrow"):
            table = llava_table(records, room)
        groups.add(table)


def metadata_table(rows: list[Metadata]) -> pa.Table:
    """SAMPLE rows of Visual-CoT lines: four turns, two views, the first box as both region and crop."""
    count = len(rows)
    contents: list[str] = []
    for row in rows:
        contents += (row.question, LOOK_TOKENS, "<image>", row.answer)
    boxes = pa.array(np.array([row.bboxs[0] for row in rows], dtype=np.float64).reshape(-1))
    pixels = boxes.cast(pa.int32(), safe=False)
    numbers = pa.array(np.zeros(count, dtype=np.int32))
    views = pa.StructArray.from_arrays(
        [
            numbers,
            numbers,
            _constant("vlm", count),
            pa.FixedSizeListArray.from_arrays(pixels, 4),
            pa.FixedSizeListArray.from_arrays(pixels, 4),
        ],
        fields=list(SAMPLE.field("views").type.value_type),
    )
    regions = pa.StructArray.from_arrays(
        [numbers, pa.FixedSizeListArray.from_arrays(boxes, 4), pa.nulls(count, pa.string())],
        fields=list(SAMPLE.field("regions").type.value_type),
    )
    return _table(
        count,
        source="viscot",
        dataset=pa.array([row.dataset for row in rows], pa.string()),
        messages=_messages(np.full(count, 4), contents),
        paths=pa.array([row.image for row in rows], pa.string()),
        sizes=(
            np.array([row.width for row in rows], dtype=np.int32),
            np.array([row.height for row in rows], dtype=np.int32),
        ),
        question=pa.array([row.question for row in rows], pa.string()),
        views=_one_each(views),
        regions=_one_each(regions),
        answers=pa.array([row.possible_answers or [row.answer] for row in rows], pa.list_(pa.string())),
        meta=pa.array([_meta(row) for row in rows], pa.string()),
    )


def _meta(row: Metadata) -> str | None:
    return f"{row.thought}{bytes(row.reasoning).decode()}{row.full_answer}" or None


def llava_table(records: list[Record], room: dict[str, int]) -> pa.Table:
    """SAMPLE rows of LLaVA records with an image, as far as `room` (counted down here) allows."""
    kept, turns = [], []
    contents: list[str] = []
    for record in records:
        if record.image is None:
            continue
        kind = record.image[: record.image.index("/")]
        kind = kind if room.get(kind, 0) else "rest"
        if not room[kind]:
            continue
        room[kind] -= 1
        values = [turn.value for turn in record.conversations]
        if kind != "rest":
            values = [values[0], LOOK_TOKENS[:60], "<detection_image>", values[1]]
        kept.append(record)
        turns.append(len(values))
        contents += values
    count = len(kept)
    return _table(
        count,
        source="llava",
        dataset=_constant("llava", count),
        messages=_messages(np.array(turns, dtype=np.int64), contents),
        paths=pa.array([record.image for record in kept], pa.string()),
        sizes=None,
        question=pa.array([record.conversations[0].value for record in kept], pa.string()),
        views=_one_each(_whole_views(count)),
        regions=None,
        answers=_one_each(pa.array([record.conversations[1].value for record in kept], pa.string())),
        meta=pa.nulls(count, pa.string()),
        source_id=pa.array([str(record.id) for record in kept], pa.string()),
    )


def _whole_views(count: int) -> pa.Array:
    fields = list(SAMPLE.field("views").type.value_type)
    numbers = pa.array(np.zeros(count, dtype=np.int32))
    nothing = [pa.nulls(count, field.type) for field in fields[3:]]
    return pa.StructArray.from_arrays([numbers, numbers, _constant("vlm", count), *nothing], fields=fields)


def _table(
    count: int,
    *,
    source: str,
    dataset: pa.Array,
    messages: pa.Array,
    paths: pa.Array,
    sizes: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None,
    question: pa.Array,
    views: pa.Array | None,
    regions: pa.Array | None,
    answers: pa.Array | None,
    meta: pa.Array,
    source_id: pa.Array | None = None,
) -> pa.Table:
    """All SAMPLE columns; what a file does not give is a constant, null or empty."""
    text = {
        "take": source, "source": source, "split": "train", "task": "general", "template": "region",
        "region_status": "given", "license": "LicenseRef-none", "language": "en",
    }  # fmt: skip
    columns: dict[str, pa.Array] = {name: _constant(value, count) for name, value in text.items()}
    images = pa.StructArray.from_arrays(
        [pa.nulls(count, pa.binary()), paths], fields=list(SAMPLE.field("images").type.value_type)
    )
    width, height = (pa.array(side) for side in sizes) if sizes else (pa.nulls(count, pa.int32()),) * 2
    nothing = pa.nulls(count, pa.string())
    info = pa.StructArray.from_arrays(
        [width, height, nothing, nothing, nothing], fields=list(SAMPLE.field("image_info").type.value_type)
    )
    columns |= {
        "id": pa.array(
            [f"{source}/{number:016x}" for number in np.random.default_rng(count).integers(0, 1 << 62, count).tolist()],
            pa.string(),
        ),
        "dataset": dataset,
        "source_id": source_id or nothing,
        "looks": _one_each(_constant("region", count)),
        "messages": messages,
        "images": _one_each(images),
        "image_info": _one_each(info),
        "question": question,
        "meta": meta,
        "prompted": pa.array(np.ones(count, dtype=bool)),
        "k": pa.array(np.full(count, 8, dtype=np.int32)),
        "crop_margin_cells": pa.array(np.zeros(count, dtype=np.int32)),
        "weight": pa.array(np.ones(count, dtype=np.float32)),
    }
    given = {"views": views, "regions": regions, "answers": answers}
    columns |= {name: column for name, column in given.items() if column is not None}
    arrays = [columns[field.name] if field.name in columns else _absent(field.type, count) for field in SAMPLE]
    return pa.Table.from_arrays(arrays, schema=SAMPLE)


def _absent(kind: pa.DataType, count: int) -> pa.Array:
    """Empty lists for list columns, nulls for others."""
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(np.zeros(count + 1, dtype=np.int32), pa.array([], kind.value_type), type=kind)
    return pa.nulls(count, kind)


def _constant(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _one_each(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), values)


def _messages(turns: np.ndarray[Any, Any], contents: list[str]) -> pa.Array:
    """The messages column: `turns[i]` contents each, roles alternating from `user`."""
    offsets = np.concatenate([[0], np.cumsum(turns)])
    parity = (np.arange(len(contents)) - np.repeat(offsets[:-1], turns)) % 2
    roles = pa.array(["user", "assistant"]).take(pa.array(parity))
    pairs = pa.StructArray.from_arrays(
        [roles, pa.array(contents, pa.string())], fields=list(SAMPLE.field("messages").type.value_type)
    )
    return pa.ListArray.from_arrays(offsets.astype(np.int32), pairs)


if __name__ == "__main__":
    sys.exit(main())
