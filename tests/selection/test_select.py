"""Selection without files: the worked example of its docstring, and what holds for any records, takes and quotas."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_data import hashing
from vpt_data.dialogue.regions import RegionState
from vpt_data.recipe import Recipe
from vpt_data.schema import sample_ids
from vpt_data.selection.index import INDEX, InputIndex
from vpt_data.selection.select import NOTHING, Selection, SelectionLimits, select
from vpt_data.take import Take


def record(key: str, dataset: str = "A", **more: Any) -> dict[str, Any]:
    """One row of an index; the image has the name of the key."""
    hashed = {name: int(hashing.seeded(pa.array([key]), place)[0]) for place, name in enumerate(("identity", "record"))}
    return {
        "dataset": dataset, "form": None, "key": key, "more": None, "content": 0, "variant": 0, "row": 0, "line": None,
        "images": 1, "pairs": 1, "region": RegionState.OK, "repairs": 0, "owned": False, "unanswered": False,
        "fault": None, "detail": None,
        **hashed, **more,
    }  # fmt: skip


def indexed(records: list[dict[str, Any]], number: int = 0, file: str = "rows.jsonl") -> InputIndex:
    rows = [{**each, "row": row} for row, each in enumerate(records)]
    table = pa.Table.from_pylist(rows, schema=INDEX)
    return InputIndex(
        number=number, pool="p", source="s", dataset="", file=file, table=table, position=np.arange(len(rows))
    )


def recipe(**takes: dict[str, Any]) -> Recipe:
    return Recipe(
        take={
            name: Take(**{"source": "s", "template": "plain", "task": "general", "turns": "first", **take})
            for name, take in takes.items()
        }
    )


def limits(made: Recipe, known: dict[str, int | None], **more: Any) -> SelectionLimits:
    return SelectionLimits(made, dict.fromkeys(made.take, "p"), known, **more)


def hash_in(take: str, key: str) -> int:
    return int(hashing.seeded(sample_ids(take, pa.array([key]), None), 0)[0])


def kept(found: Selection, records: list[dict[str, Any]], made: Recipe) -> dict[str, list[str]]:
    """The keys that each take keeps."""
    names = list(made.take)
    result: dict[str, list[str]] = {name: [] for name in names}
    for pick in found.picks.to_pylist():
        result[names[pick["take"]]].append(records[pick["position"]]["key"])
    return result


def test_the_worked_example() -> None:
    """Three takes and six records: one fits no take, one is a duplicate, one take waits for its limit."""
    made = recipe(
        near={"dataset": "A", "count": 2}, mixed={"dataset": ["A", "B"], "count": 1}, rest={"dataset": ["A", "B"]}
    )
    keys = sorted(["r1", "r2", "r3"], key=lambda key: hash_in("near", key))
    records = [*(record(key) for key in keys), record("r4", "B"), record("r4", "B", variant=1), record("r6", "C")]
    known: dict[str, int | None] = {"near": hash_in("near", keys[1]), "rest": None}

    first = select(limits(made, known), [indexed(records)])
    assert kept(first, records, made)["near"] == keys[:2]
    counts = first.counts
    assert (counts["unmatched:s"].read, counts["unmatched:s"].dropped) == (1, {"not_selected": 1})
    assert (counts["near"].read, counts["near"].kept, counts["near"].dropped) == (3, 2, {"not_selected": 1})
    assert counts["mixed"].dropped == {"duplicate": 1}
    assert first.measured.keys() == {"mixed"}
    orders, offered = first.measured["mixed"]
    assert orders is not None and offered == 2
    assert sorted(orders.tolist()) == sorted(hash_in("mixed", key) for key in (keys[2], "r4"))

    won, lost = sorted((keys[2], "r4"), key=lambda key: hash_in("mixed", key))
    second = select(limits(made, {**known, "mixed": hash_in("mixed", won)}), [indexed(records)])
    assert kept(second, records, made) == {"near": keys[:2], "mixed": [won], "rest": [lost]}
    assert second.counts["mixed"].dropped == {"duplicate": 1, "claimed": 2, "not_selected": 1}
    assert second.counts["rest"].dropped == {"claimed": 3}
    assert second.measured == {}


def test_a_take_behind_one_whose_limit_is_open_cannot_be_measured() -> None:
    made = recipe(first={"count": 1}, second={"count": 1})
    found = select(limits(made, {}), [indexed([record("a"), record("b")])])
    assert found.measured["first"].offered == 2
    assert found.measured["second"].orders is None


def test_a_take_may_have_the_records_of_another_again() -> None:
    """Exactly those: it waits for that take's limit, claims nothing from others, and drops nothing as claimed."""
    made = recipe(first={"count": 1}, second={"again": "first", "count": 5}, rest={})
    records = [record("a"), record("b"), record("c")]
    won, *others = sorted("abc", key=lambda key: hash_in("first", key))
    known: dict[str, int | None] = {"rest": None}
    assert select(limits(made, known), [indexed(records)]).measured["second"].orders is None
    known["first"] = hash_in("first", won)
    found = select(limits(made, known), [indexed(records)])
    orders, offered = found.measured["second"]
    assert orders is not None and (orders.tolist(), offered) == ([hash_in("second", won)], 1)
    settled = select(limits(made, known | {"second": None}), [indexed(records)])
    assert kept(settled, records, made) == {"first": [won], "second": [won], "rest": sorted(others)}
    assert (settled.counts["second"].read, settled.counts["second"].dropped) == (1, {})
    assert settled.counts["rest"].dropped == {"claimed": 1}


def test_a_quota_of_zero_keeps_nothing() -> None:
    made = recipe(none={"count": 0})
    found = select(limits(made, {"none": NOTHING}), [indexed([record("a")])])
    assert (found.counts["none"].kept, found.counts["none"].dropped) == (0, {"not_selected": 1})


def test_the_duplicate_that_stays_is_chosen_by_content_then_by_file_and_row() -> None:
    made = recipe(all={})
    same = {"record": 7, "identity": 7}
    inputs = [
        indexed([record("a", **same, variant=5), record("b", **same, variant=3)], 0, "z.jsonl"),
        indexed([record("c", **same, variant=3), record("d", **same, variant=3)], 1, "a.jsonl"),
    ]
    for order in (inputs, inputs[::-1]):
        picks = select(limits(made, {"all": None}), order).picks.to_pylist()
        assert [(pick["input"], pick["row"]) for pick in picks] == [(1, 0)]


def test_a_record_that_shares_a_key_by_chance_is_dropped_with_a_word_on_it() -> None:
    """Its id would be that of the other record; content decides what is a duplicate, and the detail shows it."""
    made = recipe(all={})
    records = [record("k", content=1), record("k", content=1, variant=3), record("k", content=2, variant=5)]
    drops = select(limits(made, {"all": None}), [indexed(records)]).drops.to_pylist()
    assert sorted((drop["reason"], drop["detail"] or "") for drop in drops) == [
        ("duplicate", ""),
        ("duplicate", "another record has the same 64-bit key and another content"),
    ]


def test_an_excluded_image_counts_once_and_also_as_a_further_image() -> None:
    made = recipe(one={"dataset": "A"}, two={})
    records = [record("a"), record("b", more=[99]), record("c", images=0)]
    out = np.sort(np.asarray([records[0]["identity"], 99, records[2]["identity"]], np.uint64))
    found = select(limits(made, {"one": None, "two": None}, excluded=out), [indexed(records)])
    assert found.counts["one"].dropped == {"eval_image": 2}
    assert found.counts["two"].dropped == {"claimed": 1}
    assert kept(found, records, made)["one"] == ["c"], "a record without an image shows none"


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"images": 0}, "missing_image", "the record names no image"),
        ({"region": RegionState.NO_SIZE}, "no_size", "the size of the image is not known"),
        (
            {"region": RegionState.NO_SIZE, "fault": "bad_image", "detail": "a.jpg: broken"},
            "bad_image",
            "a.jpg: broken",
        ),
        ({"region": RegionState.OUTSIDE}, "no_region_left", "every box is outside the image"),
        ({"region": RegionState.NONE_GIVEN}, "no_region_left", "the record gives no region"),
    ],
)
def test_what_a_region_take_cannot_use(change: dict[str, Any], reason: str, detail: str) -> None:
    made = recipe(regions={"template": "region"}, plain={})
    found = select(limits(made, {"regions": None, "plain": None}), [indexed([record("a", **change)])])
    assert [(drop["reason"], drop["detail"]) for drop in found.drops.to_pylist()] == [(reason, detail)]
    assert found.counts["plain"].kept == 1


def test_a_record_with_a_held_out_and_another_image_is_in_neither_split() -> None:
    share = 0.5
    numbers = np.arange(1, 50, dtype=np.uint64)
    held = hashing.held_out(numbers, share)
    inside, outside = (int(numbers[held == which][0]) for which in (True, False))
    made = msgspec.structs.replace(recipe(train={}, test={"expected": "none"}), holdout=share)
    records = [
        record("torn", identity=inside, more=[outside]),
        record("whole", identity=inside, more=[inside]),
        record("other", identity=outside),
    ]
    found = select(limits(made, {"train": None, "test": None}), [indexed(records)])
    assert kept(found, records, made) == {"train": ["whole", "other"], "test": ["torn"]}
    assert found.counts["train"].dropped == {"eval_image": 1}


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "dataset": st.sampled_from("ABC"),
            "identity": st.integers(0, 3),
            "record": st.integers(0, 12),
            "variant": st.integers(0, 2),
            "region": st.sampled_from(list(RegionState)),
            "pairs": st.integers(1, 3),
        }
    ),
    max_size=30,
    unique_by=lambda each: (each["record"], each["variant"]),  # what is equal in both has the same content
)
TAKES = st.lists(
    st.fixed_dictionaries(
        {
            "dataset": st.sampled_from([None, "A", ["A", "B"]]),
            "template": st.sampled_from(["plain", "region"]),
            "distinct_images": st.booleans(),
            "turns": st.sampled_from(["first", "each"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=80)
@given(listed=RECORDS, takes=TAKES, data=st.data())
def test_every_record_is_kept_once_or_dropped_with_a_reason(
    listed: list[dict[str, Any]], takes: list[dict[str, Any]], data: st.DataObject
) -> None:
    """For each take read = kept + dropped, no record is kept by two takes, and the order of records does not count."""
    made = recipe(**{f"t{number}": take for number, take in enumerate(takes)})
    repeated = data.draw(st.lists(st.sampled_from(listed), max_size=5)) if listed else []
    records = [record(f"k{each['record']}", **each) for each in [*listed, *repeated]]
    known = {name: data.draw(st.sampled_from([None, NOTHING, 1 << 63, (1 << 64) - 1])) for name in made.take}
    rules = limits(made, known, excluded=np.asarray([0], np.uint64))
    found = select(rules, [indexed(records)])
    reasons = Counter((drop["take"], drop["reason"]) for drop in found.drops.to_pylist())
    for name, counts in found.counts.items():
        assert counts.read == counts.kept + sum(counts.dropped.values())
        assert {reason: reasons[name, reason] for reason in counts.dropped} == counts.dropped
    owner: dict[int, int] = {}
    for pick in found.picks.to_pylist():
        assert owner.setdefault(pick["position"], pick["take"]) == pick["take"]
        assert records[pick["position"]]["identity"] != 0
    assert len({records[position]["record"] for position in owner}) == len(owner)

    order = data.draw(st.permutations(range(len(records))))
    again = select(rules, [indexed([records[number] for number in order])])
    contents = [
        sorted((pick["take"], pick["turn"], pick["order"], pick["identity"]) for pick in each.picks.to_pylist())
        for each in (found, again)
    ]
    assert contents[0] == contents[1]
    assert again.counts == found.counts
