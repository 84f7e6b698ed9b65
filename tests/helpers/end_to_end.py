"""What the end-to-end tests share: make a corpus, look at what is in it, write a raw root of one's own."""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import recipe
from vpt_data.corpus.manifest import read
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.pipeline.plan import Mode
from vpt_data.selection.take_counts import TakeCounts

OWN = """
name = "own"
shards = 4

[take.mine]
source = "table"
template = "region"
task = "general"
license = "CC0-1.0"
files = ["own/rows.jsonl"]
images = "own/images"
columns = { box = "box", width = "w", height = "h" }
"""


def own_take(name: str, **values: Any) -> str:
    """A take like that of OWN under another name, with these keys instead or besides, as TOML."""
    given = [line for line in OWN[OWN.index("source") :].splitlines() if line.partition(" = ")[0] not in values]
    lines = [f"[take.{name}]", *given, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n" + "\n".join(lines) + "\n"


def build(
    name: str | Path,
    raw: Path,
    out: Path,
    *overrides: str,
    mode: Mode = "reference",
    limit: int | None = None,
    workers: int = 1,
    fresh: bool = False,
) -> Path:
    """Build a corpus in this process and return its folder."""
    planned = plan.make(recipe.load(str(name), overrides), raw, mode, limit)
    pipeline.build(planned, out, functools.partial(start_engine, "local", workers), fresh=fresh)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


def shards(corpus: Path) -> dict[str, bytes]:
    return contents(corpus / "data")


def table(corpus: Path, split: str = "*") -> pa.Table:
    """All rows of a split in the order of its shards."""
    paths = sorted((corpus / "data").glob(f"{split}-*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])


def rows(corpus: Path, split: str = "*") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(corpus, split).to_pylist()
    return found


def ids(corpus: Path) -> set[str]:
    return set(table(corpus)["id"].to_pylist())


def ids_by_shard(corpus: Path) -> dict[str, list[str]]:
    paths = sorted((corpus / "data").glob("*.parquet"))
    return {path.name: pq.read_table(path, columns=["id"])["id"].to_pylist() for path in paths}


def drops(corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(corpus / "dropped.parquet").to_pylist()
    return found


def origins(corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(corpus / "origins.parquet").to_pylist()
    return found


def account(corpus: Path) -> dict[str, TakeCounts]:
    """The manifest's account by take, after a look at whether it adds up and agrees with the other files."""
    made = read(corpus)
    found = {component.take: component for component in made.components}
    assert len(found) == len(made.components)
    for component in made.components:
        assert component.read == component.kept + sum(component.dropped.values()), component
    said = {(take, why): n for take, part in found.items() for why, n in part.dropped.items()}
    assert Counter((drop["take"], drop["reason"]) for drop in drops(corpus)) == said
    kept = table(corpus).select(["id", "take", "split"]).to_pylist()
    assert Counter(row["take"] for row in kept) == {take: part.kept for take, part in found.items() if part.kept}
    assert Counter(row["split"] for row in kept) == {name: s.rows for name, s in made.splits.items() if s.rows}
    assert sorted(row["id"] for row in kept) == sorted(origin["id"] for origin in origins(corpus))
    assert len({row["id"] for row in kept}) == len(kept)
    repaired = Counter((row["id"].split("/")[0], kind) for row in origins(corpus) for kind in row["repaired"])
    assert repaired == {(take, kind): n for take, part in found.items() for kind, n in part.repaired.items()}
    return found


def own_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Different questions about images of 640x480, three questions an image."""
    return [
        {
            "image": f"{number // 3:03d}.jpg",
            "question": f"What is number {number}?",
            "answer": f"a thing {number}",
            "box": [number % 300, 20, 310 + number % 300, 400],
            "w": 640,
            "h": 480,
        }
        for number in range(start, start + count)
    ]


def lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def own_root(folder: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """A raw root that holds own/rows.jsonl."""
    (folder / "own").mkdir(parents=True, exist_ok=True)
    (folder / "own/rows.jsonl").write_text(lines(records), encoding="utf-8")
    return folder


def own_images(root: Path, count: int) -> None:
    """Files for the first images of `own_rows`, of which only the names are right."""
    (root / "own/images").mkdir(exist_ok=True)
    for number in range(count):
        (root / f"own/images/{number:03d}.jpg").touch()


def recipe_file(folder: Path, text: str = OWN, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def linked_copy(root: Path, copy: Path) -> Path:
    """A copy of a raw root that shares its files; `replace` them, do not write into them."""

    def link(source: str, target: str) -> None:
        Path(target).hardlink_to(source)

    shutil.copytree(root, copy, copy_function=link)
    return copy


def replace(path: Path, data: bytes) -> None:
    """Write a file anew, not through its other names."""
    path.unlink()
    path.write_bytes(data)
