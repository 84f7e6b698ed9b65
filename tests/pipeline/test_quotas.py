"""Quotas are settled partition by partition, and let in what they would if there were but one partition."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers import end_to_end
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_data.selection.take_counts import TakeCounts

#: A corpus without a row is none: one take always gives some.
HEAD = end_to_end.OWN.replace("shards = 4", 'encoder = "dino"\nshards = 1')
DATASETS = {"coco": "coco/train2017/{:012d}.jpg", "gqa": "gqa/images/{}.jpg", "vg": "vg/VG_100K/{}.jpg"}


def talk(number: int, dataset: str, image: int, turns: int, short: bool) -> dict[str, Any]:
    brief = "\nAnswer the question using a single word or phrase." if short else ""
    turns_of = [("human", f"<image>\nWhat is {number}?{brief}"), ("gpt", f"It is {number}.")]
    for turn in range(1, turns):
        turns_of += [("human", f"And {turn}?"), ("gpt", f"Also {number}.")]
    path = DATASETS[dataset].format(image)
    return {"id": str(number), "image": path, "conversations": [{"from": who, "value": text} for who, text in turns_of]}


TALKS = st.lists(
    st.tuples(st.sampled_from(list(DATASETS)), st.integers(1, 12), st.integers(1, 4), st.booleans()),
    min_size=1,
    max_size=60,
)


@st.composite
def takes(draw: st.DrawFn) -> dict[str, Any]:
    """A take of conversations that may overlap with every other."""
    take: dict[str, Any] = {"source": "llava", "task": "general"}
    take["template"] = draw(st.sampled_from(["plain", "reencode"]))
    take["count"] = draw(st.sampled_from(["all", 0, 1, 3, 8, 20, 1000]))
    if wanted := draw(st.lists(st.sampled_from(list(DATASETS)), unique=True, max_size=2)):
        take["dataset"] = wanted
    if draw(st.booleans()):
        take["distinct_images"] = True
    if share := draw(st.sampled_from([None, 0.1, 0.5, 1.0])):
        take["share"] = share
    take["turns"] = draw(st.sampled_from(["each", "first", "all"]))
    if draw(st.integers(0, 3)) == 0:
        take["forms"] = ["short"]
    return take


def recipe(listed: list[dict[str, Any]]) -> str:
    parts = []
    for number, take in enumerate(listed):
        parts.append(f"\n[take.t{number}]\n" + "".join(f"{key} = {json.dumps(take[key])}\n" for key in take))
    return HEAD + "".join(parts)


def chosen(corpus: Path) -> tuple[set[str], dict[str, TakeCounts], list[tuple[Any, ...]]]:
    """Who got in, the account by take, and every line of the drop table in one order."""
    lines = sorted(tuple(map(str, drop.values())) for drop in end_to_end.drops(corpus))
    return end_to_end.ids(corpus), end_to_end.account(corpus), lines


@settings(max_examples=12)
@given(talks=TALKS, listed=st.lists(takes(), min_size=1, max_size=4), shards=st.sampled_from([2, 3, 4, 7]))
def test_partitions_cannot_show(
    talks: list[tuple[str, int, int, bool]], listed: list[dict[str, Any]], shards: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = end_to_end.own_root(folder / "raw", end_to_end.own_rows(5))
        (raw / "llava").mkdir()
        rows = [talk(number, *given) for number, given in enumerate(talks)]
        (raw / "llava/llava_v1_5_mix665k.json").write_text(json.dumps(rows))
        own = end_to_end.recipe_file(folder, recipe(listed))
        one = end_to_end.build(own, raw, folder / "one")
        many = end_to_end.build(own, raw, folder / "many", f"shards={shards}")
        assert chosen(many) == chosen(one)


def test_the_shipped_mix_with_its_exclusion(sample_root: Path, reference_corpus: Path, tmp_path: Path) -> None:
    for shards in (1, 8):
        corpus = end_to_end.build("sample", sample_root, tmp_path / str(shards), f"shards={shards}")
        assert chosen(corpus) == chosen(reference_corpus)


POPE = """
shards = 1

[take.sure]
source = "pope"
dataset = "coco_random"
template = "plain"
task = "general"
"""


@pytest.mark.parametrize("quota", ["all", "7"])
def test_an_id_that_is_met_again_in_another_partition_is_kept_once(tmp_path: Path, quota: str) -> None:
    """The owner's question_id is the key, so rows with the same one are duplicates whatever they show."""
    numbers = [*range(24), *range(23, -1, -1), 5, 5]
    rows = [
        {"question_id": number, "image": f"COCO_val2014_{at:012d}.jpg", "text": f"Is it {number}?", "label": "yes"}
        for at, number in enumerate(numbers)
    ]
    (tmp_path / "raw/pope/coco").mkdir(parents=True)
    (tmp_path / "raw/pope/coco/coco_pope_random.json").write_text(end_to_end.lines(rows))
    own = end_to_end.recipe_file(tmp_path, POPE)
    corpora = [
        end_to_end.build(own, tmp_path / "raw", tmp_path / str(shards), f"shards={shards}", f"take.sure.count={quota}")
        for shards in (1, 2, 4, 8)
    ]
    ids, account, lines = chosen(corpora[0])
    assert len(ids) == (24 if quota == "all" else 7)
    assert account["sure"].dropped["duplicate"] == 26
    assert len([name for name, listed in end_to_end.ids_by_shard(corpora[2]).items() if listed]) > 1
    shown = {row["id"]: row["images"] for row in end_to_end.rows(corpora[0])}
    for corpus in corpora[1:]:
        assert chosen(corpus) == (ids, account, lines)
        assert {row["id"]: row["images"] for row in end_to_end.rows(corpus)} == shown
