"""The account of a build: what was read, mended, dropped and kept, and where each sample comes from.

All of it is gathered from the files that the tasks left, partition by partition and shard by shard, so that memory
does not grow with the corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpt_data import store
from vpt_data.corpus import fingerprint, manifest
from vpt_data.corpus.card import render_card
from vpt_data.corpus.manifest import Manifest
from vpt_data.images import identity, root
from vpt_data.pipeline import quotas, writing
from vpt_data.pipeline.plan import Plan
from vpt_data.pipeline.workspace import Work, offset, shifted
from vpt_data.pipeline.writing import ShardDone
from vpt_data.schema import DROP, ORIGIN, SCHEMA_VERSION, Reason
from vpt_data.selection import take_counts
from vpt_data.selection.index import INDEX
from vpt_data.selection.take_counts import Component, Input
from vpt_data.store import AnyPath
from vpt_data.upstream.download.lockfile import accepted

#: Drops by rule, which no `--strict` objects to; all others say that something is wrong with the raw data.
PLANNED = frozenset({Reason.NOT_SELECTED, Reason.CLAIMED, Reason.EVAL_IMAGE, Reason.DUPLICATE, Reason.LICENSE})
#: Rows of the side tables that are written at once.
_ROWS = 1 << 17


def account(planned: Plan, work: Work) -> Manifest:
    """Write drops, origins and card; the manifest that is still to be written."""
    made: dict[str, list[ShardDone]] = {split: [] for split in work.shards}
    for block in writing.blocks(work):
        made[block.split].extend(writing.done(block))
    everything = [shard for shards_of in made.values() for shard in shards_of]
    components = take_counts.empty_account(work.recipe)
    _write_parquet(work.out / "dropped.parquet", DROP, _drops(work, everything, components))
    _write_parquet(work.out / "origins.parquet", ORIGIN, (shard.side(work) for shard in everything))
    made_of = Manifest(
        schema_version=SCHEMA_VERSION,
        tool=manifest.tool(),
        recipe=manifest.RecipeRecord(
            planned.recipe.name,
            planned.recipe.digest(),
            msgspec.to_builtins(planned.recipe.recorded()),
            planned.excluded.digest() if planned.excluded else None,
        ),
        inputs=input_records(work),
        mode=planned.mode,
        license_policy=planned.policy,
        verify_images=planned.verify,
        licenses_accepted=accepted(work.root) if isinstance(work.root, Path) else [],
        limited=planned.limit is not None,
        components=[_component(component) for component in components.values()],
        splits={split: _split(shards_of) for split, shards_of in made.items()},
        images=_images(work, made),
        fingerprint=fingerprint.fingerprint([shard.side(work) for shard in everything]),
        missing=[f"{take}: {gap.places[0]}" for take, gaps in planned.missing.items() for gap in gaps],
        not_checked=planned.not_checked,
    )
    manifest.write_text(work.out / "README.md", render_card(made_of, planned.recipe.recorded()))
    return made_of


def _drops(work: Work, made: list[ShardDone], components: dict[str, Component]) -> Iterator[pa.Table]:
    """The drop table in pieces, while the account of all takes is summed up in `components`."""
    for number, given in enumerate(work.inputs):
        rejects = store.read_arrow(work.prepared(number).rejects)
        if given.keep and len(rejects):
            takes = [take for take in work.recipe.take if work.pools[take] == given.pool]
            seen = Input(number, *given[:4], INDEX.empty_table(), np.zeros(0, np.int64))
            lines = shifted(rejects, offset(work, number))
            yield from take_counts.rejected(work.recipe, takes, seen, lines, components)
    for partition in range(work.partitions):
        for component in quotas.account(work, partition):
            if component.take not in components:
                take_counts.unmatched(components, component.source)
            components[component.take].add(component)
        yield store.read_arrow(work.part(partition, "drops"))
    for shard in made:
        for take, reason in zip(shard.dropped_takes, shard.dropped_reasons, strict=True):
            components[take].kept -= 1
            components[take].dropped[reason] += 1
        for take, kinds in shard.repaired.items():
            components[take].repaired.update(kinds)
        yield shard.drops()


def _images(work: Work, made: dict[str, list[ShardDone]]) -> manifest.ImagesRecord:
    """Distinct images of all splits; the shards of the same range of hashes are compared with each other."""
    ranges = math.gcd(*work.shards.values())
    distinct = 0
    for number in range(ranges):
        seen = [np.zeros(0, np.uint64)]
        for split, count in work.shards.items():
            for shard in made[split][number * count // ranges : (number + 1) * count // ranges]:
                side = shard.side(work)
                seen.append(side.filter(side["imaged"])["identity"].to_numpy())
        distinct += len(np.unique(np.concatenate(seen)))
    everything = [shard for shards_of in made.values() for shard in shards_of]
    return manifest.ImagesRecord(
        distinct, sum(shard.embedded for shard in everything), sum(shard.missing for shard in everything)
    )


def input_records(work: Work) -> list[manifest.InputRecord]:
    """Every raw file that was read, with size and sha256; pass 1 must be done."""
    records: set[manifest.InputRecord] = set()
    for number, given in enumerate(work.inputs):
        prepared = work.prepared(number)
        files = msgspec.json.decode(prepared.record.read_bytes())["files"]
        if given.first:
            files.append(msgspec.json.decode(prepared.survey.read_bytes()))
        records.update(manifest.InputRecord(raw["file"], raw["bytes"], raw["sha256"]) for raw in files)
    if (genome := identity.image_data(work.root)) is not None:
        found = genome.survey([])
        records.add(manifest.InputRecord(found.file, found.bytes, found.sha256))
    return sorted(records)


def _component(component: Component) -> manifest.ComponentRecord:
    fields = {name: getattr(component, name) for name in manifest.ComponentRecord.__struct_fields__}
    fields["repaired"] = dict(sorted(component.repaired.items()))
    fields["dropped"] = {reason: n for reason, n in sorted(component.dropped.items()) if n}
    return manifest.ComponentRecord(**fields)


def _split(made: list[ShardDone]) -> manifest.SplitRecord:
    records = [manifest.ShardRecord(shard.file, shard.rows, shard.bytes, shard.sha256) for shard in made]
    return manifest.SplitRecord(sum(shard.rows for shard in made), records)


def _write_parquet(path: AnyPath, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
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


def notes(made: Manifest, out: AnyPath) -> list[str]:
    """What is wrong with folders and archives that rows were dropped for, a sentence each without its full stop."""
    if made.mode != "embed" or not any(Reason.MISSING_IMAGE in part.dropped for part in made.components):
        return []
    missing = [("reason", "==", str(Reason.MISSING_IMAGE))]
    found = pq.read_table(
        store.parquet_source(out / "dropped.parquet"), columns=["detail"], filters=missing, partitioning=None
    )
    return root.problems_in(pc.unique(found["detail"].drop_null()).to_pylist())


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
    return found
