"""Images kept out of training: several excluded recipes, and a held-out split by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import end_to_end

from vpt_data import hashing, recipe
from vpt_data.corpus.manifest import read
from vpt_data.errors import UsageError

TEST = end_to_end.OWN.replace('template = "region"', 'template = "plain"\nexpected = "region"')


def test_several_recipes_are_excluded(tmp_path: Path) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(60))
    for name, start in (("first", 0), ("second", 30)):
        (raw / f"own/{name}.jsonl").write_text(end_to_end.lines(end_to_end.own_rows(6, start)))
        end_to_end.recipe_file(tmp_path, TEST.replace("rows.jsonl", f"{name}.jsonl"), f"{name}.toml")
    both = end_to_end.OWN.replace("shards = 4", 'shards = 4\nexclude = ["first.toml", "second.toml"]')
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, both), raw, tmp_path / "out")
    found = end_to_end.account(corpus)["mine"]
    assert (found.kept, found.dropped) == (48, {"eval_image": 12})
    made = read(corpus)
    assert made.recipe.resolved["exclude"] == ["first.toml", "second.toml"]
    digests = [recipe.load(str(tmp_path / f"{name}.toml")).digest() for name in ("first", "second")]
    assert made.recipe.exclude_sha256 == digests
    assert "`first.toml`, `second.toml`" in (corpus / "README.md").read_text()
    again = end_to_end.build(tmp_path / "own.toml", raw, tmp_path / "out")
    assert read(again) == made, "the same recipes are the same corpus"


def rows(count: int) -> list[dict[str, Any]]:
    return end_to_end.own_rows(count)


@pytest.mark.parametrize("shards", [1, 8])
def test_a_share_of_the_images_is_held_out_with_all_their_rows(tmp_path: Path, shards: int) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", rows(900))
    own = end_to_end.recipe_file(tmp_path, end_to_end.OWN)
    corpus = end_to_end.build(own, raw, tmp_path / "out", "holdout=0.1", f"shards={shards}")
    found = {
        split: {row["images"][0]["path"] for row in end_to_end.rows(corpus, split)} for split in ("train", "holdout")
    }
    assert not found["train"] & found["holdout"]
    assert len(found["train"]) + len(found["holdout"]) == 300
    assert 15 <= len(found["holdout"]) <= 45
    assert all(row["split"] == "holdout" for row in end_to_end.rows(corpus, "holdout"))
    assert end_to_end.account(corpus)["mine"].kept == 900
    sizes = [len(ids) for name, ids in end_to_end.ids_by_shard(corpus).items() if name.startswith("train")]
    assert min(sizes) > 0.3 * max(sizes), "held-out images are of all shards alike"
    more = end_to_end.build(
        own, end_to_end.own_root(raw, rows(1200)), tmp_path / "more", "holdout=0.1", f"shards={shards}"
    )
    grown = {row["images"][0]["path"] for row in end_to_end.rows(more, "holdout")}
    assert found["holdout"] <= grown, "a new row moves no image into the other split"


def test_the_share_is_met_and_independent_of_partitions() -> None:
    identity = np.random.default_rng(0).integers(0, 1 << 64, 200_000, np.uint64)
    held = hashing.held_out(identity, 0.02)
    assert abs(held.mean() - 0.02) < 0.002
    for partition in range(8):
        assert abs(held[hashing.partition_of(identity, 8) == partition].mean() - 0.02) < 0.004
    assert not (held & ~hashing.held_out(identity, 0.05)).any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("holdout=0", "holdout is 0.0; expected a share of more than 0 and less than 1, for instance 0.02."),
        ("holdout=1", "holdout is 1.0; expected a share of more than 0 and less than 1, for instance 0.02."),
    ],
)
def test_a_share_that_cannot_be_is_refused(tmp_path: Path, setting: str, message: str) -> None:
    own = end_to_end.recipe_file(tmp_path, end_to_end.OWN)
    with pytest.raises(UsageError) as refused:
        recipe.load(str(own), [setting])
    assert str(refused.value) == f"Recipe {own}: {message}"


def test_a_split_may_not_have_the_name_of_the_held_out_one(tmp_path: Path) -> None:
    own = end_to_end.recipe_file(tmp_path, end_to_end.OWN)
    with pytest.raises(UsageError) as refused:
        recipe.load(str(own), ["holdout=0.1", "split=holdout"])
    assert "a split is called 'holdout', which is the split that the key holdout makes" in str(refused.value)
