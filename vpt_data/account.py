"""The account of a build: what was read, mended, dropped and kept, and where each sample comes from."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import manifest, mix, prepare, shards
from vpt_data.assemble import ShardDone
from vpt_data.card import render_card
from vpt_data.manifest import Manifest
from vpt_data.plan import Plan
from vpt_data.schema import DROP, ORIGIN, SCHEMA_VERSION, Reason

#: Drops by rule, which no `--strict` objects to; all others say that something is wrong with the raw data.
PLANNED = frozenset({Reason.NOT_SELECTED, Reason.CLAIMED, Reason.EVAL_IMAGE, Reason.DUPLICATE})


def account(
    planned: Plan,
    prepared: list[prepare.Prepared],
    selection: mix.Selection,
    made: dict[str, list[ShardDone]],
    out: Path,
) -> Manifest:
    """Write drops, origins and card; the manifest that is still to be written."""
    everything = [shard for shards_of in made.values() for shard in shards_of]
    components = {component.take: component for component in selection.components}
    late = [DROP.empty_table()]
    for shard in everything:
        late.append(shard.drops())
        for take, reason in zip(shard.dropped_takes, shard.dropped_reasons, strict=True):
            components[take].kept -= 1
            components[take].dropped[reason] += 1
        for take, kinds in shard.repaired.items():
            components[take].repaired.update(kinds)
    sides = [shard.side(out / ".work") for shard in everything]
    with ThreadPoolExecutor() as writers:
        drops, origins = pa.concat_tables([selection.drops, *late]), [side.select(ORIGIN.names) for side in sides]
        writing = [
            writers.submit(_write_parquet, out / "dropped.parquet", drops),
            writers.submit(_write_parquet, out / "origins.parquet", pa.concat_tables([ORIGIN.empty_table(), *origins])),
        ]
        fingerprint = shards.fingerprint(*_pairs(sides))
        for done in writing:
            done.result()
    made_of = Manifest(
        schema_version=SCHEMA_VERSION,
        tool=manifest.tool(),
        recipe=manifest.RecipeRecord(
            planned.recipe.name,
            planned.recipe.digest(),
            msgspec.to_builtins(planned.recipe),
            planned.excluded.digest() if planned.excluded else None,
        ),
        inputs=_input_records(prepared),
        mode=planned.mode,
        limited=planned.limit is not None,
        components=[_component(component) for component in components.values()],
        splits={split: _split(shards_of) for split, shards_of in made.items()},
        images=_images(sides, everything),
        fingerprint=fingerprint,
        missing=[f"{take}: {gap.places[0]}" for take, gaps in planned.missing.items() for gap in gaps],
        not_checked=planned.not_checked,
    )
    manifest.write_text(out / "README.md", render_card(made_of, planned.recipe))
    return made_of


def _pairs(sides: list[pa.Table]) -> tuple[list[pa.Array], list[pa.Array]]:
    ids = [chunk for side in sides for chunk in side["id"].chunks]
    return ids, [chunk for side in sides for chunk in side["hash"].chunks]


def _images(sides: list[pa.Table], made: list[ShardDone]) -> manifest.ImagesRecord:
    identities = [side.filter(side["imaged"])["identity"].to_numpy() for side in sides]
    distinct = len(np.unique(np.concatenate([np.zeros(0, np.uint64), *identities])))
    return manifest.ImagesRecord(distinct, sum(shard.embedded for shard in made), sum(shard.missing for shard in made))


def _input_records(prepared: list[prepare.Prepared]) -> list[manifest.InputRecord]:
    records: set[manifest.InputRecord] = set()
    for given in prepared:
        record = msgspec.json.decode(given.record.read_bytes())
        files = record["files"]
        if given.survey.is_file():
            files.append(msgspec.json.decode(given.survey.read_bytes()))
        records.update(manifest.InputRecord(raw["file"], raw["bytes"], raw["sha256"]) for raw in files)
    return sorted(records)


def _component(component: mix.Component) -> manifest.ComponentRecord:
    fields = {name: getattr(component, name) for name in manifest.ComponentRecord.__struct_fields__}
    fields["repaired"] = dict(sorted(component.repaired.items()))
    fields["dropped"] = {reason: n for reason, n in sorted(component.dropped.items()) if n}
    return manifest.ComponentRecord(**fields)


def _split(made: list[ShardDone]) -> manifest.SplitRecord:
    records = [manifest.ShardRecord(shard.file, shard.rows, shard.bytes, shard.sha256) for shard in made]
    return manifest.SplitRecord(sum(shard.rows for shard in made), records)


def _write_parquet(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    pq.write_table(table.combine_chunks(), temporary, compression="zstd")
    temporary.replace(path)


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
