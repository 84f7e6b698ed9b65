"""Pass 2: shards out of the prepared inputs. Pure: the same task gives the same bytes, wherever it runs.

A block of neighbouring shards covers a range of partitions. Its rows are taken from every input and rendered take by
take (for the whole block, since small tables cost as much as large ones), then each shard is written by itself.
Beside each shard a small Arrow table (`side`) keeps what sealing needs of each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, hashing, store
from vpt_data.corpus import fingerprint, image_counts, shards
from vpt_data.corpus.manifest import ShardRecord
from vpt_data.corpus.reader import Shard, open_corpus
from vpt_data.corpus.row_groups import Bucket, LostRow, Outcome, text_bytes
from vpt_data.dialogue.render import render
from vpt_data.hashing import partition_of
from vpt_data.pipeline import plan, quotas
from vpt_data.pipeline.open_files import open_files, records
from vpt_data.pipeline.workspace import Work
from vpt_data.recipe import Recipe
from vpt_data.recipe.record import HOLDOUT
from vpt_data.schema import DROP, SAMPLE, Repair, repair_names
from vpt_data.store import AnyPath

SIDE = pa.schema(
    [
        ("id", pa.string()),
        ("hash", pa.binary(16)),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("identity", pa.uint64()),
        ("repairs", pa.uint16()),
    ]
)


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring shards of a split that are rendered together: `size` of its `count` from number `first` on."""

    work: Work
    split: str
    first: int
    size: int
    count: int

    @property
    def names(self) -> list[str]:
        """The file names without extension."""
        return [f"{self.split}-{n:05d}-of-{self.count:05d}" for n in range(self.first, self.first + self.size)]

    @property
    def partitions(self) -> range:
        """The partitions whose rows are in these shards."""
        start = self.work.plan.partitions * self.first // self.count
        return range(start, -(-self.work.plan.partitions * (self.first + self.size) // self.count))

    def record(self, name: str) -> AnyPath:
        """The record of a finished shard."""
        return self.work.shard(name, "json")


def blocks(work: Work) -> list[Block]:
    """All blocks of a build, in order."""
    return [
        Block(work, split, first, plan.block_size(count), count)
        for split, count in work.plan.shards.items()
        for first in range(0, count, plan.block_size(count))
    ]


class DroppedRow(msgspec.Struct, frozen=True):
    """A row of DROP for a sample that was selected and could not be written."""

    take: str
    source: str | None
    dataset: str | None
    key: str
    file: str
    line: int | None
    reason: str
    detail: str


class ShardDone(msgspec.Struct, frozen=True):
    """What is kept of a finished shard under OUT/.work/shards.

    repaired   take -> kind -> rows
    problems   what is wrong with folders and archives in which its images were looked for
    """

    record: ShardRecord
    repaired: dict[str, dict[str, int]]
    dropped: list[DroppedRow]
    problems: list[str] = []

    def drops(self) -> pa.Table:
        """The rows that could not be written as rows of the drop table."""
        return pa.Table.from_pylist([msgspec.structs.asdict(row) for row in self.dropped], schema=DROP)

    def side(self, work: Work) -> pa.Table:
        """SIDE of every row in the shard, sorted by id."""
        return store.read_arrow(work.shard(self._name, "arrow"))

    def images(self, work: Work) -> pa.Table:
        """IMAGES of the shard."""
        return store.read_arrow(work.shard(self._name, "images"))

    @property
    def _name(self) -> str:
        return self.record.file.removeprefix("data/").removesuffix(".parquet")


def done(block: Block) -> list[ShardDone]:
    """The records of the finished shards of a block."""
    return [msgspec.json.decode(block.record(name).read_bytes(), type=ShardDone) for name in block.names]


def make_block(block: Block) -> None:
    """Write the shards of a block that are not done yet, each with its side table and, last, its record."""
    todo = [name for name in block.names if not block.record(name).is_file()]
    if not todo:
        return
    bucket, side, rows = _block_rows(block)
    for name in todo:
        _make_shard(block, name, bucket, side, rows[name])


def adopt(block: Block, there: Mapping[str, ShardRecord]) -> None:
    """Take over those shards of a finished corpus that hold every row they should, so that they are not made again.

    there   what the manifest says of each shard, by name
    """
    _, side, rows = _block_rows(block)
    repaired = _repaired_images(block.work.out)
    for name in block.names:
        path, mine = block.work.out / f"data/{name}.parquet", side.take(pa.array(rows[name]))
        if name not in there or not path.is_file() or path.stat().st_size != there[name].bytes:
            continue
        shard = Shard(path, block.split, block.work.plan.mode == "embed")
        tables = list(shard.tables())
        ids = pa.chunked_array([chunk for table in tables for chunk in table["id"].chunks], pa.string())
        if len(ids) != len(mine) or pc.any(pc.invert(pc.is_in(mine["id"], value_set=ids))).as_py():
            continue
        hashes = pa.chunked_array([fingerprint.sample_hashes(table) for table in tables], pa.binary(16))
        kept = mine.take(pc.index_in(ids, value_set=columns.column(mine, "id")))
        images = image_counts.of_shard([image_counts.images_of(table) for table in tables])
        report = shards.ShardReport(there[name], Outcome(repaired=repaired), ids, hashes, images)
        _finish_shard(block, name, kept, report, [])
    store.write(block.work.shard(block.names[0], "compared"), b"")


def _block_rows(block: Block) -> tuple[Bucket, pa.Table, dict[str, npt.NDArray[np.int64]]]:
    """The rows of a block, rendered, and which of them go to each of its shards, in their order."""
    for partition in block.partitions:
        quotas.decide(block.work, partition)
    bucket, side = _gather(block)
    rows = bucket.ranked()
    shard = partition_of(bucket.identity[rows], block.count)
    ends = np.searchsorted(shard, np.arange(block.first, block.first + block.size + 1))
    return bucket, side, {name: rows[a:b] for name, a, b in zip(block.names, ends, ends[1:], strict=False)}


def _make_shard(block: Block, name: str, bucket: Bucket, side: pa.Table, rows: npt.NDArray[np.int64]) -> None:
    work = block.work
    root = open_files(work.run).images(work.plan.root, work.plan.verify)
    report = shards.write_shard(work.out / f"data/{name}.parquet", bucket, rows, root, work.plan.mode == "embed")
    mine = side.take(pa.array(rows))
    kept = mine.take(pc.index_in(report.ids, value_set=columns.column(mine, "id")))
    _finish_shard(block, name, kept, report, _dropped(report.outcome.dropped, bucket.samples, side))


def _finish_shard(
    block: Block, name: str, kept: pa.Table, report: shards.ShardReport, dropped: list[DroppedRow]
) -> None:
    """Write the side tables and, last, the record of a shard."""
    outcome = report.outcome
    kept = kept.set_column(kept.schema.get_field_index("hash"), SIDE.field("hash"), report.hashes)
    kept = kept.set_column(kept.schema.get_field_index("repairs"), SIDE.field("repairs"), _repairs(kept, outcome))
    store.write_arrow(block.work.shard(name, "arrow"), kept.select(SIDE.names).sort_by("id"))
    store.write_arrow(block.work.shard(name, "images"), report.images)
    record = ShardDone(
        record=report.record,
        repaired=_repaired(kept),
        dropped=dropped,
        problems=sorted(outcome.problems.union(*(row.failure.problems for row in outcome.dropped))),
    )
    store.write(block.record(name), msgspec.json.encode(record))


def _gather(block: Block) -> tuple[Bucket, pa.Table]:
    """The samples of the block in any order, and their SIDE columns with take and line (hash still null)."""
    work = block.work
    rules = plan.render_rules(work.recipe)
    by_take: dict[int, list[tuple[pa.Table, pa.Table, str]]] = {}
    for take, rows, picks, name in _picked(block):
        by_take.setdefault(take, []).append((rows, picks, name))
    samples, sides, orders = [SAMPLE.empty_table()], [_side_schema().empty_table()], [np.zeros(0, np.uint64)]
    for take in sorted(by_take):
        here = by_take[take]
        found = pa.concat_tables([part[0] for part in here]).combine_chunks()
        picks = pa.concat_tables([part[1] for part in here]).combine_chunks()
        rule = replace(rules[take], split=block.split)
        turn = picks["turn"].to_numpy() if rule.turns == "each" else None
        rendered = render(found, rule, turn)
        files = pa.concat_arrays([pa.repeat(name, len(picked)) for _, picked, name in here])
        sides.append(_side(rendered, picks, files, rule.take))
        samples.append(rendered)
        orders.append(picks["order"].to_numpy())
    side = pa.concat_tables(sides).combine_chunks()
    whole = pa.concat_tables(samples).combine_chunks()
    text, rescale = text_bytes(whole), plan.rescaling(work.recipe)
    return Bucket(whole, side["identity"].to_numpy(), np.concatenate(orders), text, rescale), side


def _side_schema() -> pa.Schema:
    return pa.schema([*SIDE, ("take", pa.string()), ("line", pa.int64())])


def _side(rendered: pa.Table, picks: pa.Table, files: pa.Array, take: str) -> pa.Table:
    count = len(rendered)
    values = [rendered["id"], pa.nulls(count, pa.binary(16)), files, picks["row"], picks["identity"], picks["repairs"]]
    return pa.table([*values, pa.repeat(take, count), picks["line"]], schema=_side_schema())


def _picked(block: Block) -> Iterator[tuple[int, pa.Table, pa.Table, str]]:
    """(take, annotations, picks, file) for this block, annotations and picks row by row in step."""
    work = block.work
    tables = [store.read_arrow(work.part(partition, "picks")) for partition in block.partitions]
    picks = pa.concat_tables(tables).combine_chunks()
    picks = picks.filter(pa.array(_in_split(picks, block.split, work.recipe)))
    picks = picks.sort_by([("input", "ascending"), ("position", "ascending")])
    number = picks["input"].to_numpy()
    for given in np.unique(number).tolist():
        low, high = np.searchsorted(number, [given, given + 1]).tolist()
        here = picks.slice(low, high - low)
        positions, take = here["position"].to_numpy(), here["take"].to_numpy()
        for stretch, part in records(work, given, positions):
            for each in np.unique(take[part]).tolist():
                mine = np.arange(part.start, part.stop)[take[part] == each]
                rows = stretch.table.take(pa.array(positions[mine] - stretch.start))
                yield each, rows, here.take(pa.array(mine)), work.plan.inputs[given].job.rows.name


def _in_split(picks: pa.Table, split: str, recipe: Recipe) -> npt.NDArray[np.bool_]:
    """Which picks belong to a split: by their take, and where images are held out by the image."""
    splits, take = plan.splits(recipe), picks["take"].to_numpy()
    mine: npt.NDArray[np.bool_] = np.isin(take, splits[split])
    if recipe.holdout is not None:
        held = hashing.held_out(picks["identity"].to_numpy(), recipe.holdout) & np.isin(take, splits[HOLDOUT])
        mine &= held == (split == HOLDOUT)
    return mine


def _repairs(kept: pa.Table, outcome: Outcome) -> pa.Array:
    """The repairs of each row, those of its images included: uint16[N]."""
    bits = kept["repairs"].to_numpy().copy()
    for kind, ids in outcome.repaired.items():
        bits[columns.flags(pc.is_in(columns.column(kept, "id"), value_set=pa.concat_arrays(ids)))] |= kind.value
    return pa.array(bits)


def _repaired_images(corpus: AnyPath) -> dict[Repair, list[pa.Array]]:
    """The ids of rows with repaired images, as the table of origins of a finished corpus has them."""
    origins = open_corpus(corpus).origins().combine_chunks()
    repaired = columns.unlist(columns.column(origins, "repaired"))
    ids = columns.column(origins, "id").take(pa.array(repaired.rows))
    kinds = (Repair.REENCODED, Repair.REWRITTEN, Repair.RESCALED)
    return {kind: [ids.filter(pc.equal(repaired.values, str(kind.name).lower()))] for kind in kinds}


def _repaired(kept: pa.Table) -> dict[str, dict[str, int]]:
    """How many rows of each take were repaired, by kind."""
    counts: dict[str, Counter[str]] = {}
    takes = columns.column(kept, "take")
    repaired = columns.unlist(repair_names(kept["repairs"].to_numpy()))
    pairs = pa.table({"take": takes.take(pa.array(repaired.rows)), "kind": repaired.values})
    for entry in pairs.group_by(["take", "kind"]).aggregate([([], "count_all")]).to_pylist():
        counts.setdefault(entry["take"], Counter())[entry["kind"]] += entry["count_all"]
    return {take: dict(sorted(kinds.items())) for take, kinds in sorted(counts.items())}


def _dropped(lost: list[LostRow], samples: pa.Table, side: pa.Table) -> list[DroppedRow]:
    if not lost:
        return []
    place = {sample: number for number, sample in enumerate(samples["id"].to_pylist())}
    found = []
    for row in lost:
        number = place[row.id]
        take, _, key = row.id.partition("/")
        found.append(
            DroppedRow(
                take=take,
                source=samples["source"][number].as_py(),
                dataset=samples["dataset"][number].as_py(),
                key=key,
                file=side["file"][number].as_py(),
                line=side["line"][number].as_py(),
                reason=str(row.failure.reason),
                detail=row.failure.detail,
            )
        )
    return found
