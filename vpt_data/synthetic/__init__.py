"""The sample: a synthetic raw root in the native layout of every upstream, images included.

It is the fixture of the tests, the demo, and a small world in which a second look helps. `write_sample`
makes it; `scenes` and `pages` are drawn, `questions` are asked about them, `pools` says how much there is of what,
`formats` writes files, and `viscot`, `llava` and `native` write the owners' formats,
`lvis` LVIS's of the same scenes, and `depth` rooms with depth maps. `plates` is a smaller world of its
own, which a small model can learn. Nothing here uses
`vpt_data.sources`, so that a mistake in reading is not hidden by the same mistake in writing.

Dirt, so that tests can count on it (besides what `native` and `llava` say of theirs):

- Visual-CoT training files have the defects of `viscot.PARTS[name].dirt`; a `duplicate`, `malformed`,
  `empty_answer`, `missing_field` or `wrong_type` is one line more than the part's quota, any other bends
  the box of a good row.
- Its benchmark has those of `benchmark_dirt` (boxes only); VSR shares `viscot.VSR_SHARED_IMAGES` images with
  training.
- GQA rows have several boxes, DocVQA and InfographicsVQA rows the same box once for each possible answer.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpt_data.errors import OutputError
from vpt_data.synthetic.depth import room_count, write_rooms
from vpt_data.synthetic.formats import Writer
from vpt_data.synthetic.llava import write_llava, write_pretrain
from vpt_data.synthetic.lvis import write_lvis
from vpt_data.synthetic.native import (
    extra_images,
    write_coco,
    write_cub,
    write_genome,
    write_own,
    write_pope,
    write_vsr,
)
from vpt_data.synthetic.pools import PAGES, SCENES, draw_pools, pool_sizes
from vpt_data.synthetic.viscot import write_viscot

#: Raise this when the same rows and seed give other bytes, so that older samples are made again.
SAMPLE_VERSION = 3
MARKER = "sample.json"


def write_sample(
    out: Path, rows: int = 2000, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Write a raw root to `out` and return the number of records of each annotation file, by relative path.

    `rows` is about how many training rows the recipe `mixvrt` finds in it, shared out as in the real mix
    with at least a dozen rows a file. The same rows and seed give the same bytes (with one version of
    Pillow). The folder appears complete or not at all; one that is there with the same rows and seed is
    left as it is, an older sample is replaced. `progress(done, total)` is called after each image.

    Raises OutputError if `out` holds something else or cannot be written, or if `rows` is not positive.
    """
    if rows < 1:
        raise OutputError(f"A sample of {rows} rows was asked for; ask for at least one.")
    out = Path(out).resolve()
    wanted = {"sample_version": SAMPLE_VERSION, "rows": rows, "seed": seed}
    found = _read_marker(out)
    if found is not None and {key: found.get(key) for key in wanted} == wanted:
        return dict(found["counts"])
    fresh = out.with_name(f".{out.name}.{os.getpid()}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        counts = _write_all(fresh, rows, seed, progress or (lambda done, total: None))
        text = json.dumps({**wanted, "counts": counts}, indent=2, sort_keys=True)
        (fresh / MARKER).write_text(text + "\n", encoding="utf-8")
        _replace(out, fresh)
    except OSError as error:
        raise OutputError(f"Writing the sample to {out} failed ({error}); nothing is left of it.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return counts


def _read_marker(out: Path) -> dict[str, Any] | None:
    """What the sample in `out` was made with, or None for nothing; refuses a folder of something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = None
    if not isinstance(marker, dict) or "sample_version" not in marker:
        raise OutputError(f"{out} holds something that is not a sample raw root; choose a new or an empty folder.")
    return dict(marker)


def _replace(out: Path, fresh: Path) -> None:
    """Put the finished folder in place of an older sample, an empty folder or nothing."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_all(root: Path, rows: int, seed: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    total, done = sum(pool_sizes(rows).values()) + extra_images(rows) + 2 * room_count(rows), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    writer = Writer(root, tick)
    scenes = draw_pools(SCENES, writer, rows, seed)
    pages = draw_pools(PAGES, writer, rows, seed)
    birds = write_cub(writer, rows, seed)
    write_viscot(writer, rows, seed, scenes, pages, birds)
    write_coco(writer, [*scenes["coco"], *scenes["vsr"], *scenes["vsr/held"]], seed)
    write_lvis(writer, scenes["coco"], seed)
    write_vsr(writer, scenes["vsr"], seed)
    write_genome(writer, [*scenes["gqa"], *scenes["gqa/held"], *scenes["llava_vg"], *scenes["visual7w"]])
    write_pope(writer, scenes["pope"], seed)
    write_llava(writer, rows, seed, scenes, pages)
    write_pretrain(writer, scenes["llava_pretrain"], seed)
    write_own(writer, pages, scenes["own"])
    write_rooms(writer, rows, seed)
    return dict(sorted(writer.counts.items()))
