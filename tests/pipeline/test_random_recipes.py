"""Random recipes over the sample root: every record is accounted for, and nobody can see who built the corpus.

Three recipes here, 200 with VPT_SOAK=1 (`make soak`). Each is made from its number: run it again with -k.
"""

from __future__ import annotations

import functools
import json
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from helpers import end_to_end
from helpers.soak import SOAK

from vpt_data import recipe
from vpt_data.corpus.manifest import read
from vpt_data.errors import UsageError
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.pipeline.engines.local import Local
from vpt_data.pipeline.engines.ranks import Ranks
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.recipe.record import resolved
from vpt_data.sources import SOURCES

ROUNDS = 200 if SOAK else 3
#: What a take may read: the source and data set of each take of these recipes, and the files of own ones.
KNOWN = [take for name in ("sample", "sample_eval") for take in recipe.load(name).take.values()]
READ = ("source", "dataset", "files", "instances", "images", "columns", "box_format", "box_units")


def shuffled(text: str, suffix: str, order: Random) -> str:
    """The same records in another order."""
    if suffix == ".csv":
        head, *rows = text.splitlines(keepends=True)
        order.shuffle(rows)
        return head + "".join(row if row.endswith("\n") else row + "\n" for row in rows)
    if text.lstrip().startswith("["):
        records = json.loads(text)
        order.shuffle(records)
        return json.dumps(records)
    lines = text.splitlines(keepends=True)
    order.shuffle(lines)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


@pytest.fixture(scope="module")
def permuted(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample root with the records of its main files in another order."""
    root = end_to_end.linked_copy(sample_root, tmp_path_factory.mktemp("permuted") / "raw")
    order, count = Random(0), 0
    for given in plan.make(recipe.load("sample"), root, "reference", None).inputs:
        raw = given.job.rows
        if raw.path.suffix in {".csv", ".json", ".jsonl"} and "\n" in raw.path.read_text(encoding="utf-8"):
            try:
                text = shuffled(raw.path.read_text(encoding="utf-8"), raw.path.suffix, order)
            except json.JSONDecodeError:
                continue
            end_to_end.replace(raw.path, text.encode())
            count += 1
    assert count > 5
    return root


def one_take(chance: Random) -> dict[str, Any]:
    known = chance.choice(KNOWN)
    written = {key: value for key in READ if (value := getattr(known, key)) is not None}
    take = {key: value for key, value in written.items() if key in {"source", "dataset"} or known.files}
    take |= {"task": "general", "template": chance.choice(["plain", "plain", "reencode", "region", "textbox"])}
    take["count"] = chance.choice(["all", 0, 1, 5, 20, 1000])
    if chance.random() < 0.2:
        take |= {"expected": chance.choice(["region", "reencode", "none"]), "template": "plain", "split": "test"}
    if chance.random() < 0.2:
        take["distinct_images"] = True
    if chance.random() < 0.2:
        take["share"] = chance.choice([0.1, 0.5, 1.0])
    if take["template"] in {"plain", "reencode"} and chance.random() < 0.3:
        take["turns"] = chance.choice(["first", "each"])
    if SOURCES[known.source].forms and chance.random() < 0.3:
        take["forms"] = chance.sample(SOURCES[known.source].forms, 1)
    return take


def random_recipe(chance: Random) -> recipe.Recipe:
    """A recipe that loads; what cannot be is refused with a sentence, and another is drawn."""
    while True:
        table: dict[str, Any] = {
            "name": "random", "encoder": chance.choice(["dino", "sam", "clip"]), "seed": chance.randrange(100),
            "take": {f"t{number}": one_take(chance) for number in range(chance.randint(1, 5))},
        }  # fmt: skip
        if chance.random() < 0.5:
            table["shards"] = chance.choice([1, 2, 3, 8, 16])
        if chance.random() < 0.3:
            table["exclude"] = chance.choice(["sample_eval", ["sample_eval", "pope_full"]])
        if chance.random() < 0.3:
            table["holdout"] = chance.choice([0.05, 0.3])
        try:
            return resolved(recipe.decode(msgspec.to_builtins(table), "random"))
        except UsageError as error:
            assert str(error).startswith("Recipe random")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_every_record_counts_and_nobody_sees_who_built(
    sample_root: Path, permuted: Path, tmp_path: Path, number: int
) -> None:
    chance = Random(f"recipe {number}")
    drawn, mode = random_recipe(chance), chance.choice(["reference", "reference", "embed"])

    def planned(root: Path) -> plan.Plan:
        return plan.make(drawn, root, "embed" if mode == "embed" else "reference", None)

    def built(root: Path, name: str, workers: int = 1) -> Path:
        out = tmp_path / name
        pipeline.build(planned(root), out, functools.partial(start_engine, "local", workers))
        return out

    one = built(sample_root, "one")
    if not (one / "manifest.json").is_file():
        return  # a corpus without a row has no manifest
    found = end_to_end.account(one)
    ranked = tmp_path / "ranks"
    for rank in (2, 0, 1):
        ranks = Ranks(rank, 3, Local(None), wait=0.01)
        assert (
            pipeline.build(planned(sample_root), ranked, lambda ranks=ranks: nullcontext(ranks), together=True) is None
        )
    pipeline.seal(planned(sample_root), ranked)
    assert end_to_end.contents(ranked) == end_to_end.contents(one)
    assert end_to_end.contents(built(sample_root, "two", workers=2)) == end_to_end.contents(one)
    other = built(permuted, "permuted")
    assert read(other).fingerprint == read(one).fingerprint
    assert end_to_end.shards(other) == end_to_end.shards(one)
    assert {take: part.kept for take, part in end_to_end.account(other).items()} == {
        take: part.kept for take, part in found.items()
    }
