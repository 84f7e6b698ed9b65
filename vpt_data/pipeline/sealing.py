"""Sealing a build: what was read, repaired, dropped and kept, and where each sample comes from.

All of it is gathered from the files that the tasks left, partition by partition and shard by shard, so that memory
does not grow with the corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import store
from vpt_data.corpus import fingerprint, image_counts, manifest
from vpt_data.corpus.card import render_card
from vpt_data.corpus.manifest import Manifest
from vpt_data.images import identity
from vpt_data.pipeline import quotas, writing
from vpt_data.pipeline.open_files import offset, shifted
from vpt_data.pipeline.plan import Plan
from vpt_data.pipeline.workspace import Work
from vpt_data.pipeline.writing import ShardDone
from vpt_data.schema import DROP, ORIGIN, SCHEMA_VERSION, Reason, repair_names
from vpt_data.selection import take_counts
from vpt_data.selection.take_counts import TakeCounts
from vpt_data.sources import SOURCES
from vpt_data.store import AnyPath
from vpt_data.upstream.download.lockfile import accepted

#: Drops by rule, which no `--strict` objects to; all others say that something is wrong with the raw data.
PLANNED = frozenset({Reason.NOT_SELECTED, Reason.CLAIMED, Reason.EVAL_IMAGE, Reason.DUPLICATE, Reason.LICENSE})
#: Repairs of boxes; 0.9 % of the boxes of real sources need one, 17 % and more where boxes are read in a wrong format.
_BOX_REPAIRS = ("swapped", "clipped", "zero_area")
#: The share of a take's rows with such a repair that nobody need look at, and the fewest rows that make a share.
MOST_REPAIRED, _FEW_ROWS = 0.1, 20
#: Rows of the side tables that are written at once.
_ROWS = 1 << 17


def seal(work: Work) -> Manifest:
    """Write drops, origins and card; the manifest that is still to be written."""
    planned = work.plan
    made: dict[str, list[ShardDone]] = {split: [] for split in planned.shards}
    for block in writing.blocks(work):
        made[block.split].extend(writing.done(block))
    everything = [shard for shards_of in made.values() for shard in shards_of]
    counts = take_counts.empty_counts(work.recipe)
    write_parquet(work.out / "dropped.parquet", DROP, _drops(work, everything, counts))
    write_parquet(work.out / "origins.parquet", ORIGIN, (_origins(shard.side(work)) for shard in everything))
    made_of = Manifest(
        schema_version=SCHEMA_VERSION,
        tool=manifest.tool(),
        recipe=manifest.RecipeRecord(
            planned.recipe.name,
            planned.recipe.digest(),
            msgspec.to_builtins(planned.recipe.recorded()),
            planned.exclude_sha256,
        ),
        inputs=input_records(work),
        mode=planned.mode,
        license_policy=planned.policy,
        verify_images=planned.verify,
        licenses_accepted=accepted(planned.root) if isinstance(planned.root, Path) else [],
        limited=planned.limit is not None,
        components=[take.in_order() for take in counts.values()],
        splits={split: _split(shards_of) for split, shards_of in made.items()},
        images=_images(work, made),
        fingerprint=fingerprint.fingerprint([shard.side(work) for shard in everything]),
        missing=[f"{take}: {gap.places[0]}" for take, gaps in planned.missing.items() for gap in gaps],
        not_checked=planned.not_checked + _unmapped(work),
        image_problems=_image_problems(work, everything),
    )
    manifest.write_text(work.out / "README.md", render_card(made_of, planned.recipe.recorded()))
    return made_of


def _origins(side: pa.Table) -> pa.Table:
    return side.append_column(ORIGIN.field("repaired"), repair_names(side["repairs"].to_numpy()))


def _drops(work: Work, made: list[ShardDone], counts: dict[str, TakeCounts]) -> Iterator[pa.Table]:
    """The drop table in pieces, while the counts of all takes are summed up in `counts`."""
    for number, given in enumerate(work.plan.inputs):
        rejects = store.read_arrow(work.prepared(number).rejects)
        if given.keep and len(rejects):
            yield from take_counts.count_rejects(
                work.recipe,
                [take for take in work.recipe.take if work.plan.pools[take] == given.pool],
                shifted(rejects, offset(work, number)),
                counts,
                source=given.job.source,
                dataset=given.job.dataset,
                file=given.job.rows.name,
            )
    for partition in range(work.plan.partitions):
        for part in quotas.decided_counts(work, partition):
            if part.take not in counts:
                take_counts.unmatched(counts, part.source)
            counts[part.take].add(part)
        yield store.read_arrow(work.part(partition, "drops"))
    for shard in made:
        for row in shard.dropped:
            counts[row.take].kept -= 1
            counts[row.take].drop(row.reason)
        for take, kinds in shard.repaired.items():
            counts[take].repair(kinds)
        yield shard.drops()


def _image_problems(work: Work, made: list[ShardDone]) -> list[str]:
    """What is wrong with folders and archives where images were not found, a sentence each without its full stop."""
    found = {problem for shard in made for problem in shard.problems}
    for number, given in enumerate(work.plan.inputs):
        if given.keep:
            found.update(work.prepared(number).read_record().problems)
    return sorted(found)


def _images(work: Work, made: dict[str, list[ShardDone]]) -> manifest.ImagesRecord:
    """The counts of images; the shards of the same range of hashes, of all splits, may show the same ones."""
    ranges = math.gcd(*work.plan.shards.values())

    def tables(number: int) -> Iterator[pa.Table]:
        for split, count in work.plan.shards.items():
            for shard in made[split][number * count // ranges : (number + 1) * count // ranges]:
                yield shard.images(work)

    return image_counts.count(lambda: map(tables, range(ranges)), work.plan.mode == "embed")


def _unmapped(work: Work) -> list[str]:
    """Visual Genome's list of images, where it is missing and only it knows whether both sides show one photo."""
    if not work.plan.excluded or identity.image_data(work.plan.root) is not None:
        return []
    mine: set[str] = set()
    theirs: set[str] = set()
    excluded = {pool for pools in work.plan.excluded_pools for pool in pools.values()}
    for number, given in enumerate(work.plan.inputs):
        schemes = work.prepared(number).read_record().schemes
        if given.keep:
            mine.update(schemes)
        if given.pool in excluded:
            theirs.update(schemes)
    crossed = ("vg" in mine and "coco" in theirs) or ("coco" in mine and "vg" in theirs)
    return ["Visual Genome's list of COCO images (vg/image_data.json)"] if crossed else []


def input_records(work: Work) -> list[manifest.InputRecord]:
    """Every raw file that was read, with size and sha256; pass 1 must be done."""
    records: set[manifest.InputRecord] = set()
    for number, given in enumerate(work.plan.inputs):
        files = work.prepared(number)
        records.update(files.read_record().files)
        if given.begins_file:
            records.add(files.read_survey().file)
    if (genome := identity.image_data(work.plan.root)) is not None:
        found = genome.survey([])
        records.add(manifest.InputRecord(found.file, found.bytes, found.sha256))
    return sorted(records)


def _split(made: list[ShardDone]) -> manifest.SplitRecord:
    return manifest.SplitRecord(sum(shard.record.rows for shard in made), [shard.record for shard in made])


def write_parquet(path: AnyPath, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables one after another, gathered into row groups of a decent size."""
    with store.creating(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        gathered, rows = [schema.empty_table()], 0
        for table in tables:
            gathered.append(table.select(schema.names))
            rows += len(table)
            if rows >= _ROWS:
                writer.write_table(pa.concat_tables(gathered).combine_chunks())
                gathered, rows = [], 0
        writer.write_table(pa.concat_tables([schema.empty_table(), *gathered]).combine_chunks())


def findings(made: Manifest, planned: Plan) -> list[str]:
    """What `--strict` objects to, one sentence each."""
    found = [f"take {entry}: its file is not under the raw root" for entry in made.missing]
    for component in made.components:
        wrong = Counter({reason: n for reason, n in component.dropped.items() if Reason(reason) not in PLANNED})
        if wrong and wrong.total() > planned.recipe.tolerance * component.read:
            reasons = ", ".join(f"{reason} {n}" for reason, n in wrong.most_common())
            share = wrong.total() / component.read
            found.append(
                f"take {component.take}: {share:.2%} of {component.read} records were dropped ({reasons}), "
                f"the recipe tolerates {planned.recipe.tolerance:.2%}"
            )
        moved = {kind: n for kind in _BOX_REPAIRS if (n := component.repaired.get(kind, 0))}
        if sum(moved.values()) > MOST_REPAIRED * max(component.kept, _FEW_ROWS):
            reasons = ", ".join(f"{kind} {n}" for kind, n in moved.items())
            share = min(1, sum(moved.values()) / component.kept)
            most = "up to " * (len(moved) > 1)  # a row may be counted under several kinds
            found.append(
                f"take {component.take}: the boxes of {most}{share:.0%} of {component.kept} rows "
                f"were repaired ({reasons}), at most {MOST_REPAIRED:.0%} are expected; look at some of them, and check "
                "box_format and box_units"
            )
    return found


#: Of the images that rows show in reference mode, this share may be missing before a build warns.
MISSING_SHARE = 0.5


def warnings(made: Manifest) -> list[str]:
    """What is wrong with a corpus though no record was dropped for it, one sentence each without its full stop."""
    images, takes = made.images, made.recipe.resolved.get("take", {})
    found = []
    if made.not_checked:
        found.append(
            "training rows may show images of evaluation data, since these files are not under the raw root: "
            f"{', '.join(made.not_checked)}; `vpt-data sources` says how to get them"
        )
    if images.missing and images.missing >= MISSING_SHARE * images.distinct:
        found.append(
            f"{images.missing:,} of {images.distinct:,} images are not under the raw root, so their rows show nothing; "
            "check --raw and the key `images` of the takes, and see `vpt-data sources` for where images belong"
        )
    for part in made.components:
        source = SOURCES.get(part.source)
        if part.kept and source is not None and source.own_files and not takes.get(part.take, {}).get("license"):
            found.append(
                f"take {part.take}: no licence is given for its rows, and the card says so; "
                "set `license` in the recipe to what you know of it"
            )
    return found
