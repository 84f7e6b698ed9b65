"""A corpus of the rows of a published file, which commands and trainer read like any other.

The file is read once, stretch by stretch, and each shard is written when its rows are there: of every row only its id,
its hash and where it comes from are kept. Rows keep the order of the file. The manifest is written last.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.corpus import fingerprint, image_counts, manifest, shards
from vpt_data.corpus.card import render_card
from vpt_data.corpus.manifest import IMPORTED, InputRecord, Manifest, RecipeRecord, SplitRecord
from vpt_data.corpus.reader import DROPPED, ORIGINS
from vpt_data.corpus.row_groups import Bucket, text_bytes
from vpt_data.errors import CorpusError
from vpt_data.exchange.out_folder import finish, settle
from vpt_data.exchange.published.lint import published_file
from vpt_data.exchange.published.rows import TAKES, Converted, Converter, Refused, records_of
from vpt_data.images.root import ImageRoot
from vpt_data.pipeline.plan import shards_for
from vpt_data.pipeline.sealing import write_parquet
from vpt_data.recipe import Recipe
from vpt_data.recipe.record import resolved
from vpt_data.schema import DROP, ORIGIN, SAMPLE, SCHEMA_VERSION, repair_names
from vpt_data.selection.take_counts import TakeCounts, unmatched
from vpt_data.sources.row_count import count_rows
from vpt_data.store import AnyPath
from vpt_data.take import Edge, Take
from vpt_data.upstream.rawfile import RawFile

_MARK = ".import.json"
_SPLIT = "train"


def import_file(
    path: AnyPath, out: AnyPath, repair: bool, root: AnyPath,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:  # fmt: skip
    """Make a corpus of a published file in `out`; rows that a corpus cannot hold are in its drop table.

    repair    put region tokens beyond the grid, and the crops that were cut by them, right, and count them; False:
              keep them as they are, in a take with the edge `legacy`
    root      the raw root, for the sizes of images that are cropped, and for which images are there
    progress  is called with the records that were read, and about how many there are

    Raises CorpusError for what is no published file by its name or in which no row can be imported, RawError for
    one that is empty, truncated or no JSON, OutputError if `out` holds anything else.
    """
    raw = RawFile(published_file(path), path.name.removesuffix(".gz"))
    total = max(1, count_rows(raw, "messages"))
    settle(out, _MARK, "the imported corpus")
    made = _Import(raw, out, repair, ImageRoot(root), total)
    for part in records_of(raw):
        made.add(made.converter.convert(part))
        progress(made.read, max(total, made.read))
    result = made.finished()
    manifest.write(result, out)
    finish(out, _MARK)
    return result


class _Import:
    """An import in progress: what is kept of the shards that are written, and the rows of the next one.

    total   about how many records there are: their numbers in the file say which shard each row is in
    """

    def __init__(self, raw: RawFile, out: AnyPath, repair: bool, root: ImageRoot, total: int) -> None:
        self._raw, self._out, self._root, self._total = raw, out, root, total
        self.converter = Converter(repair, root)
        self._shards = shards_for(total)
        self._counts = {
            name: TakeCounts(name, IMPORTED, "", template, expected=0) for name, (template, _, _) in TAKES.items()
        }
        self._pending = [SAMPLE.empty_table()]
        self._reports: list[shards.ShardReport] = []
        self._origins, self._drops = [ORIGIN.empty_table()], [DROP.empty_table()]

    @property
    def read(self) -> int:
        """How many records were read."""
        return sum(count.read for count in self._counts.values())

    def add(self, part: Converted) -> None:
        """Count a stretch, and write the shards that its rows complete."""
        self._refuse(part.refused)
        names = repair_names(part.repairs)
        for take, kinds in zip(part.samples["take"].to_pylist(), names.to_pylist(), strict=True):
            counts = self._counts[take]
            counts.read, counts.kept = counts.read + 1, counts.kept + 1
            counts.repair(dict.fromkeys(kinds, 1))
        files = pa.repeat(self._raw.name, len(part.rows))
        self._origins.append(pa.table([part.samples["id"], files, pa.array(part.rows), names], schema=ORIGIN))
        shard = np.minimum(part.rows * self._shards // self._total, self._shards - 1)
        start = 0
        for number in np.unique(shard).tolist():
            while len(self._reports) < number:
                self._write()
            end = int(np.searchsorted(shard, number, side="right"))
            self._pending.append(part.samples.slice(start, end - start))
            start = end

    def finished(self) -> Manifest:
        """Write the last shards, the tables beside them and the card; the manifest that is still to be written."""
        if sum(map(len, self._origins)) == 0:
            first = [drop["detail"] for table in self._drops for drop in table.slice(0, 1).to_pylist()]
            why = f"none of its {self.read:,} records can be imported ({first[0]})" if first else "it has no records"
            raise CorpusError(f"{self._raw.name}: {why}; run `vpt-data check` on the file, and import another.")
        while len(self._reports) < self._shards:
            self._write()
        write_parquet(self._out / DROPPED, DROP, iter(self._drops))
        write_parquet(self._out / ORIGINS, ORIGIN, iter(self._origins))
        recipe = _recipe(self._raw.name, [name for name in TAKES if self._counts[name].read], self.converter.off_grid)
        made = self._manifest(recipe)
        manifest.write_text(self._out / "README.md", render_card(made, recipe))
        return made

    def _write(self) -> None:
        """Write the next shard, of the rows that are pending."""
        samples = pa.concat_tables(self._pending).combine_chunks()
        self._pending = [SAMPLE.empty_table()]
        order = np.arange(len(samples), dtype=np.uint64)  # as in the file
        bucket = Bucket(samples, order, order, text_bytes(samples))
        name = f"{_SPLIT}-{len(self._reports):05d}-of-{self._shards:05d}.parquet"
        rows = order.astype(np.int64)
        self._reports.append(shards.write_shard(self._out / "data" / name, bucket, rows, self._root, embed=False))

    def _refuse(self, refused: list[Refused]) -> None:
        for row in refused:
            counts = self._counts[row.take or unmatched(self._counts, IMPORTED)]
            counts.read += 1
            counts.drop(row.reason)
        columns = {
            "take": [row.take or f"unmatched:{IMPORTED}" for row in refused],
            "source": [IMPORTED] * len(refused),
            "dataset": [None] * len(refused),
            "key": [row.key for row in refused],
            "file": [self._raw.name] * len(refused),
            "line": [row.line for row in refused],
            "reason": [row.reason.value for row in refused],
            "detail": [f"record {row.row + 1}: {row.detail}"[:500] for row in refused],
        }
        self._drops.append(pa.table(columns, schema=DROP))

    def _manifest(self, recipe: Recipe) -> Manifest:
        images = image_counts.count(lambda: [iter([report.images for report in self._reports])], embed=False)
        records = [report.record for report in self._reports]
        content = msgspec.to_builtins(recipe)
        return Manifest(
            schema_version=SCHEMA_VERSION,
            tool=manifest.tool(),
            recipe=RecipeRecord(recipe.name, recipe.digest(), content),
            inputs=[InputRecord(self._raw.name, self._raw.size, self._raw.sha256 or "")],
            mode="reference",
            limited=False,
            components=[counts.in_order() for counts in self._counts.values() if counts.read],
            splits={_SPLIT: SplitRecord(sum(record.rows for record in records), records)},
            images=images,
            fingerprint=fingerprint.fingerprint([report.run() for report in self._reports]),
            image_problems=sorted(set().union(*(report.outcome.problems for report in self._reports))),
        )


def _recipe(name: str, takes: list[str], off_grid: int) -> Recipe:
    """What the manifest says of the rows; no build reads it.

    off_grid   how many rows name cells beyond the grid, which `check` allows the edge `legacy` alone
    """
    found = {}
    for take in takes:
        template, encoder, task = TAKES[take]
        edge: Edge = "legacy" if off_grid and take == "region" else "floor"
        found[take] = Take(source=IMPORTED, template=template, task=task, encoder=encoder, edge=edge, files=[name])
    about = f"The rows of the published file {name}."
    return resolved(Recipe(name=name.partition(".")[0], description=about, take=found))
