"""The records that are in no shard, as a page shows them: some of each reason, with what their raw files say.

A record is read again by the reader of its source, as a build does it, and is found by its key. One that was refused
before it had a key is found by its line, where that line holds no other record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.columns import Ints, column
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import Manifest
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.view import turns
from vpt_data.inspect.view.item import DropItem, Item, Pictures, images
from vpt_data.pipeline import plan
from vpt_data.pipeline.reading import with_sizes
from vpt_data.selection.index import index_of
from vpt_data.sources import SOURCES
from vpt_data.sources.base import Chunk, Job
from vpt_data.sources.boxes import in_pixels
from vpt_data.store import AnyPath

Raw = Mapping[str, Any]


def choose(table: pa.Table, places: int) -> list[dict[str, Any]]:
    """Some rows of a table of drops, in its order: places are shared out evenly over take and reason, then by hash."""
    if len(table) <= places:
        found: list[dict[str, Any]] = table.to_pylist()
        return found
    names = ("take", "reason", "file", "key", "line")
    parts = [pc.fill_null(column(table, name).cast(pa.string()), "") for name in names]
    order = np.argsort(hashing.hashes(pc.binary_join_element_wise(*parts, "\0")), kind="stable")
    group = pc.binary_join_element_wise(parts[0], parts[1], "\0").dictionary_encode().indices.to_numpy()
    # The n-th of each group by hash comes before the n + 1-th of any.
    turn = np.zeros(len(order), np.int64)
    for number in np.unique(group).tolist():
        mine = order[group[order] == number]
        turn[mine] = np.arange(len(mine))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    chosen: Ints = np.sort(np.lexsort((rank, turn))[:places])
    listed: list[dict[str, Any]] = table.take(pa.array(chosen)).to_pylist()
    return listed


def items(
    drops: list[dict[str, Any]],
    made: Manifest,
    root: AnyPath | None,
    pictures: Pictures,
    progress: Callable[[int, int], None],
) -> list[DropItem]:
    """The drops of a corpus, with an item where the raw record can be read again.

    root       the raw root; None: nothing is read again
    progress   is called with the files that were read, and how many there are
    """
    found: dict[int, Item] = {}
    if root is not None:
        files = sorted({str(drop["file"]) for drop in drops if drop["file"]})
        jobs = _jobs(made, root)
        for done, file in enumerate(files):
            wanted = {place: drop for place, drop in enumerate(drops) if drop["file"] == file}
            for source in sorted({str(drop["source"]) for drop in wanted.values()}):
                if (job := jobs.get((source, file))) is not None:
                    mine = {place: drop for place, drop in wanted.items() if drop["source"] == source}
                    found.update({place: _item(raw, pictures) for place, raw in _records(job, mine, root)})
            progress(done + 1, len(files))
    return [DropItem(**drop, item=found.get(place)) for place, drop in enumerate(drops)]


def _jobs(made: Manifest, root: AnyPath) -> dict[tuple[str, str], Job]:
    """What reads each file of the corpus, by source and file; a file that is not under the raw root has none."""
    recipe = manifest.recipe_of(made)
    if manifest.imported(recipe):
        return {}
    found: dict[tuple[str, str], Job] = {}
    for name, take in recipe.take.items():
        for job in plan.files_of(root, name, take).jobs:
            found.setdefault((job.source, job.rows.name), job)
    return found


def _records(job: Job, wanted: Mapping[int, Raw], root: AnyPath) -> Iterator[tuple[int, Raw]]:
    """The records of a file that are wanted, as rows, each with the number under which it is wanted."""
    shown, left = ImageRoot(root), dict(wanted)
    for chunk in SOURCES[job.source].read(job):
        if not left:
            return
        table = _annotations(chunk, shown)
        keys, lines = _keys(table, chunk, job, shown), _lines(chunk)
        for place, drop in list(left.items()):
            key, line = drop["key"], drop["line"]
            at = lines.get(line, -1) if key is None else int(pc.index(keys, key).as_py())
            if at >= 0:
                yield place, table.slice(at, 1).to_pylist()[0]
                del left[place]


def _lines(chunk: Chunk) -> dict[int | None, int]:
    """The record on each line, of the lines that hold one record only."""
    if chunk.line is None:
        return {}
    counts = Counter([*chunk.line.tolist(), *(drop.line for drop in chunk.drops)])
    return {line: place for place, line in enumerate(chunk.line.tolist()) if counts[line] == 1 and line >= 0}


def _annotations(chunk: Chunk, root: ImageRoot) -> pa.Table:
    """The annotations of a chunk with boxes in pixels, where the sizes of their images are known."""
    if chunk.frame is None:
        return chunk.annotations
    return in_pixels(with_sizes(chunk.annotations, root)[0], chunk.frame)


def _keys(table: pa.Table, chunk: Chunk, job: Job, root: ImageRoot) -> pa.Array:
    """The key of each record, as selection makes it."""
    count = len(table)
    form = chunk.form if chunk.form is not None else pa.nulls(count, pa.string())
    numbered = table.append_column("row", pa.array(chunk.row, pa.int64()))
    numbered = numbered.append_column("line", pa.nulls(count, pa.int64())).append_column("form", form)
    found, _ = index_of(
        numbered,
        identity=root.identity(column(table, "images").flatten().field("path")),
        unanswered=np.zeros(count, bool),
        seed=0,
        failures={},
        with_id=job.take is not None and job.take.columns.id is not None,
    )
    return column(found, "key")


def _item(raw: Raw, pictures: Pictures) -> Item:
    """What a raw record says, with its images and boxes; there is no dialogue, since it is in no corpus."""
    row = {
        **raw,
        "id": str(raw["key"] or raw["source_id"] or ""),
        "image_info": [
            {"width": image["width"], "height": image["height"], "sha256": None, "license": None, "attribution": None}
            for image in raw["images"] or []
        ],
        "images": [{"bytes": None, "path": image["path"]} for image in raw["images"] or []],
    }
    return Item(
        id=row["id"], source=raw["source"], dataset=raw["dataset"], split=raw["split"], question=raw["question"],
        answers=raw["answers"] or [], region_status=raw["region_status"], images=images(row, pictures), raw=dict(raw),
        turns=turns.turns(raw["turns"] or [], []),
    )  # fmt: skip
