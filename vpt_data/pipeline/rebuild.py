"""Shards made again from the raw root and compared byte for byte: the proof that a corpus is what it says."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import Manifest
from vpt_data.errors import CorpusError
from vpt_data.images.policy import Verify
from vpt_data.pipeline import plan, quotas, sealing, writing
from vpt_data.pipeline.build import open_work, prepare_all
from vpt_data.pipeline.engines.task import Engine
from vpt_data.pipeline.plan import Plan
from vpt_data.pipeline.workspace import make_folders
from vpt_data.store import AnyPath


class Rebuilt(NamedTuple):
    """A shard made again: what the manifest says of its bytes, and what they are now."""

    file: str
    expected: str
    found: str


class Report(NamedTuple):
    """All shards that were made again."""

    rebuilt: list[Rebuilt]

    @property
    def differ(self) -> list[Rebuilt]:
        """Those whose bytes are others."""
        return [shard for shard in self.rebuilt if shard.expected != shard.found]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {"rebuilt": [shard._asdict() for shard in self.rebuilt], "differ": len(self.differ)}

    def text(self) -> str:
        """The same for people."""
        lines = [f"{shard.file}: other bytes than the manifest says" for shard in self.differ]
        same = len(self.rebuilt) - len(self.differ)
        return "\n".join([*lines, f"{same} of {len(self.rebuilt)} shards made again have the same bytes."])


def rebuild(corpus: AnyPath, root: AnyPath, count: int, engine: Engine, seed: int = 0) -> Report:
    """Make `count` random shards (by `seed`) of a corpus again, from the raw root, in a temporary folder.

    Raises CorpusError where the corpus cannot be compared: made with --limit, by another version, or from other files.
    """
    made = manifest.read(corpus)
    planned = _plan(made, corpus, root)
    every = [(split, n) for split, part in made.splits.items() for n in range(len(part.shards))]
    chosen = sorted(random.Random(seed).sample(every, min(count, len(every))))
    with tempfile.TemporaryDirectory(prefix="vpt-data-") as folder:
        work = open_work(planned, Path(folder))
        make_folders(work)
        prepare_all(planned, work, engine)
        if (found := sealing.input_records(work)) != made.inputs:
            other = sorted({record.file for record in set(found) ^ set(made.inputs)})
            raise CorpusError(f"{corpus}: made from other files than {root} has, for instance {other[0]}.")
        quotas.settle(work, engine)
        rebuilt = []
        for split, number in chosen:
            shard = made.splits[split].shards[number]
            block = writing.Block(work, split, number, 1, len(made.splits[split].shards))
            writing.make_block(block)
            rebuilt.append(Rebuilt(shard.file, shard.sha256, writing.done(block)[0].record.sha256))
            (work.out / shard.file).unlink()
    return Report(rebuilt)


def _plan(made: Manifest, corpus: AnyPath, root: AnyPath) -> Plan:
    """The plan by which a corpus was built, from its manifest."""
    recipe = manifest.recipe_of(made)
    if manifest.imported(recipe):
        raise CorpusError(f"{corpus}: its rows were imported, and not built; import the file again to compare.")
    if made.limited:
        raise CorpusError(f"{corpus}: made with --limit, whose number is not known; build it again to compare.")
    if made.tool != manifest.tool():
        raise CorpusError(
            f"{corpus}: made by {made.tool.name} {made.tool.version} with pyarrow {made.tool.pyarrow}, whose bytes "
            f"may differ from those of {manifest.tool().version} with {pa.__version__}; compare with the same versions."
        )
    planned = plan.make(
        recipe, root, "embed" if made.mode == "embed" else "reference", None,
        msgspec.convert(made.verify_images, Verify), made.license_policy,
    )  # fmt: skip
    if recipe.digest() != made.recipe.sha256 or planned.exclude_sha256 != made.recipe.exclude_sha256:
        raise CorpusError(f"{corpus}: its recipe, or the one it excludes, is not the same in this version.")
    return planned
