"""Interventions in one command: what each changes, that it is compared with the model as it is, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked_runs import SPLITS, evaluate, records, results
from click.testing import CliRunner
from looking import pick

from trainer.evaluate import main
from trainer.evaluation import arms
from trainer.evaluation.asking.questions import INTERVENTIONS
from trainer.evaluation.items import Items
from trainer.evaluation.predictions import Prediction
from trainer.evaluation.records import RECORD
from trainer.evaluation.results import Drawing

GQA, POPE, COCO = SPLITS
ROWS = {GQA: 6, POPE: 6, COCO: 3}
LONG = ("--max-new-tokens", "12")
#: One of each kind, and the one that depends on other rows.
SOME = ("crop=random", "tokens=oracle", "control=swap")
ASKED = [word for arm in SOME for word in ("--intervene", arm)]


@pytest.fixture(scope="module", autouse=True)
def looking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.generation.rounds.Rounds._pick", pick)
        yield


@pytest.fixture(scope="module")
def whole(run: Path, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with all interventions."""
    out = tmp_path_factory.mktemp("arms") / "out"
    done = evaluate(run, embedded, out, "--intervene", "all", *LONG, rows=6)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("asked: 15 rows in ") == 1
    assert "asked with crop=random: 6 rows in " in done.stderr, "rows that it cannot change are not asked again"
    return out


def test_each_intervention_changes_the_looks_that_it_is_for(whole: Path) -> None:
    found = results(whole)["interventions"]
    assert list(found) == list(INTERVENTIONS)
    for arm, splits in found.items():
        changed = {name: (one["changed"], one["rows"]) for name, one in splits.items()}
        regions, encoders = (0, 9) if arm.startswith("control") else (6, 0)
        assert changed[GQA] == (regions, 6)
        assert changed[POPE][0] + changed[COCO][0] == encoders
        for one in splits.values():
            assert (one["difference"] is None) == (one["changed"] == 0) == (one["other_answers"] is None)
    assert {one["intervened"] for one in records(whole)} == {0}


def test_a_folder_for_each_is_an_evaluation_of_its_own(whole: Path, embedded: Path, tmp_path: Path) -> None:
    own = records(whole)
    for arm in INTERVENTIONS:
        found = results(whole / arm)
        assert (found["about"]["intervention"], found["interventions"]) == (arm, {})
        rows = records(whole / arm)
        assert [row["id"] for row in rows] == [row["id"] for row in own]
        same = [(a, b) for a, b in zip(own, rows, strict=True) if not b["intervened"]]
        assert all(a == b for a, b in same), "rows that are not changed keep their answers"
    assert results(whole)["about"]["intervention"] is None


def test_answers_change_with_what_is_shown(whole: Path) -> None:
    found = results(whole)["interventions"]
    assert found["tokens=random"][GQA]["other_answers"]["value"] > 0
    assert found["control=zero"][COCO]["other_answers"]["value"] > 0
    norms = pq.read_table(whole / "records.parquet")["control_norms"].to_pylist()
    assert [len(row) for row in norms] == [0] * 6 + [1] * 9
    assert all(norm > 0 for row in norms for norm in row)


def test_the_report_shows_the_arms_of_each_split_around_the_model_as_it_is(whole: Path) -> None:
    page = (whole / "report.md").read_text(encoding="utf-8")
    table = page.partition("## Interventions")[2].partition("\n## ")[0]
    lines = [line.split(" | ") for line in table.splitlines() if line.startswith("| GQA")]
    assert [line[1] for line in lines] == [
        "crop=oracle", "its own", "crop=shifted", "crop=random", "crop=whole", "crop=none", "tokens=oracle",
        "tokens=random", "control=mean, control=swap, control=random, control=zero",
    ]  # fmt: skip
    assert "changed no row, so there is nothing to compare" in lines[-1]
    assert {len(line) for line in lines} == {13}
    shares = [line[5] for line in lines[:-1]]
    arms_of = ["crop=oracle", None, *(line[1] for line in lines[2:-1])]
    found = results(whole)
    for arm, share in zip(arms_of, shares, strict=True):
        value = found["interventions"][arm][GQA]["empty"] if arm else found["splits"][GQA]["figures"]["empty"]
        assert share == f"{value['value']:.3f}"
    given = [not row["answer"] for row in records(whole / "crop=none")[:6]]
    assert found["interventions"]["crop=none"][GQA]["empty"]["value"] == pytest.approx(sum(given) / 6)


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (7, 2), (32, 1)])
def test_batch_and_workers_change_nothing(
    batch: int, workers: int, run: Path, embedded: Path, whole: Path, tmp_path: Path
) -> None:
    more = ("--batch", str(batch), "--workers", str(workers))
    done = evaluate(run, embedded, tmp_path / "out", *ASKED, *LONG, *more, rows=6)
    assert done.exit_code == 0, done.output
    for arm in ("", *SOME):
        assert records(tmp_path / "out" / arm) == records(whole / arm)
    every = results(whole)["interventions"]
    for arm, splits in results(tmp_path / "out")["interventions"].items():
        for name, one in splits.items():
            assert _raw(one) == _raw(every[arm][name]), "only p_holm depends on how many are asked"


def _raw(one: dict[str, Any]) -> dict[str, Any]:
    difference = one["difference"] and {**one["difference"], "p_holm": None}
    return {**one, "difference": difference}


def test_with_more_rows_the_answers_that_depend_on_others_are_made_again(
    run: Path, embedded: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert evaluate(run, embedded, out, *ASKED, *LONG, rows=2).exit_code == 0
    before = (out / "crop=random" / "answers.jsonl").read_bytes()
    done = evaluate(run, embedded, out, *ASKED, *LONG, rows=6)
    assert done.exit_code == 0, done.output
    assert (out / "crop=random" / "answers.jsonl").read_bytes().startswith(before)
    assert "asked with crop=random: 4 rows in " in done.stderr
    assert "asked with control=swap: 9 rows in " in done.stderr
    for arm in ("", *SOME):
        assert records(out / arm) == records(whole / arm)


def test_nothing_is_asked_twice(run: Path, embedded: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.evaluation.asking.model._opened", None)
        done = evaluate(run, embedded, tmp_path / "out", "--intervene", "all", *LONG, "--json", rows=6)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_vectors_of_half_precision_are_those_of_others_too(run: Path, embedded: Path, tmp_path: Path) -> None:
    more = ("--intervene", "control=swap", "--intervene", "control=mean", "--dtype", "bfloat16")
    done = evaluate(run, embedded, tmp_path / "out", *more, *LONG)
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")["interventions"]
    assert {arm: splits[POPE]["changed"] for arm, splits in found.items()} == {"control=mean": 2, "control=swap": 2}


def test_all_rotations_of_a_question_are_one_row_of_an_intervention(run: Path, embedded: Path, tmp_path: Path) -> None:
    done = evaluate(run, embedded, tmp_path / "out", "--intervene", "control=zero", "--circular", *LONG, rows=6)
    assert done.exit_code == 0, done.output
    asked = len((tmp_path / "out" / "answers.jsonl").read_bytes().splitlines())
    one = results(tmp_path / "out")["interventions"]["control=zero"][COCO]
    assert (one["rows"], one["changed"]) == (3, 3)
    assert asked > 15


def test_a_judge_judges_all_of_them(run: Path, embedded: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    done = evaluate(run, embedded, tmp_path / "out", *ASKED, *LONG, "--judge", "offline", rows=6)
    assert done.exit_code == 0, done.output
    one = results(tmp_path / "out")["interventions"]["crop=random"]
    assert one[GQA]["judge"]["rows"] == 6
    assert one[POPE]["judge"] is None
    assert results(tmp_path / "out" / "crop=random")["judge"]["model"] == "offline"


def test_wrong_usage(run: Path, embedded: Path, tmp_path: Path) -> None:
    done = evaluate(run, embedded, tmp_path / "out", "--intervene", "crop=none", "--protocol", "direct")
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: --intervene changes looks, and --protocol direct forbids them; choose another protocol.\n",
    )
    assert not (tmp_path / "out").exists()
    given = ["--predictions", tmp_path / "a.jsonl", "--data", embedded, "--intervene", "all", "--out", tmp_path / "out"]
    done = CliRunner().invoke(main, [str(argument) for argument in given])
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: --intervene needs a model of ours; give --checkpoint or --weights.\n",
    )


# --- without a model


def items_of(*splits: str, expected: str = "reencode") -> Items:
    count = len(splits)
    known = {"id": [f"{n}" for n in range(count)], "image": [f"image {n}" for n in range(count)]}
    table = pa.table({**known, "split": list(splits), "expected": [expected] * count})
    return Items(table, np.full((count, 4), np.nan), np.ones((count, 2), np.int64))


def called(number: int, kind: str = "dino") -> Prediction:
    values = np.array([number, 1.0], "<f4").tobytes()
    return Prediction(id=f"{number}", control_norms=(1.0,), control_vectors={kind: values})


def test_all_means_those_that_can_change_a_look_that_is_expected() -> None:
    assert arms.chosen(["all"], items_of("a"), "free") == [name for name in INTERVENTIONS if name.startswith("control")]
    assert arms.chosen(["all", "crop=none"], items_of("a"), "free")[0] == "crop=none"
    assert arms.chosen(["control=zero", "crop=none"], items_of("a"), "free") == ["crop=none", "control=zero"]
    assert arms.chosen([], items_of("a"), "direct") == []
    with pytest.raises(Exception, match=r"^--intervene all: no row expects a look that could be changed; evaluate wit"):
        arms.chosen(["all"], items_of("a", expected="none"), "free")


def test_every_row_has_the_vector_of_another_one_of_its_split_and_encoder() -> None:
    splits = ["a"] * 8 + ["b"] * 3 + ["c"]
    kinds = ["dino"] * 6 + ["clip"] * 2 + ["dino"] * 4
    asked, own = items_of(*splits), [called(n, kind) for n, kind in enumerate(kinds)]
    found = arms.of_others("control=swap", asked, own)
    assert set(found) == {str(n) for n in range(11)}, "the only one of a split keeps its own"
    taken = {int(name): int(vectors[kinds[int(name)]][0]) for name, vectors in found.items()}
    assert sorted(taken.values()) == sorted(taken), "each is used once"
    assert all(n != m and (splits[n], kinds[n]) == (splits[m], kinds[m]) for n, m in taken.items())
    # The rows that are there decide, not their order.
    reversed_table = asked.table.take(list(range(12))[::-1])
    turned = arms.of_others("control=swap", Items(reversed_table, asked.boxes, asked.sizes), own[::-1])
    assert {name: vectors[kinds[int(name)]].tolist() for name, vectors in turned.items()} == {
        name: vectors[kinds[int(name)]].tolist() for name, vectors in found.items()
    }
    assert arms.of_others("control=zero", asked, own) == {}
    assert arms.donors(found) != arms.donors(arms.of_others("control=swap", items_of("a", "a"), own[:2]))


@pytest.mark.parametrize(("images", "other"), [("aabb", True), ("abacbd", True), ("aaab", False), ("aaaa", False)])
def test_the_vector_is_one_of_another_image_if_there_are_enough(images: str, other: bool) -> None:
    asked = items_of(*["s"] * len(images))
    asked = Items(asked.table.set_column(1, "image", pa.array(list(images))), asked.boxes, asked.sizes)
    found = arms.of_others("control=swap", asked, [called(n) for n in range(len(images))])
    taken = {int(name): int(vectors["dino"][0]) for name, vectors in found.items()}
    assert sorted(taken.values()) == sorted(taken)
    assert all(n != m for n, m in taken.items())
    assert all(images[n] != images[m] for n, m in taken.items()) == other


def test_the_mean_is_that_of_the_rows_of_a_split() -> None:
    found = arms.of_others("control=mean", items_of("a", "a", "a", "b", "b"), [called(n) for n in range(5)])
    assert {name: vectors["dino"].tolist() for name, vectors in found.items()} == {
        "0": [1.0, 1.0], "1": [1.0, 1.0], "2": [1.0, 1.0], "3": [3.5, 1.0], "4": [3.5, 1.0],
    }  # fmt: skip


def table_of(scores: list[float], answers: list[str], intervened: list[int]) -> pa.Table:
    count = len(scores)
    known: dict[str, list[Any]] = {
        "id": [f"{n}" for n in range(count)],
        "split": ["s"] * count,
        "metric": ["gqa"] * count,
        "image": [f"image {n}" for n in range(count)],
        "score": scores,
        "answer": answers,
        "intervened": intervened,
    }
    return pa.table([pa.array(known.get(field.name) or [None] * count, field.type) for field in RECORD], RECORD)


def test_rows_that_are_not_changed_count_as_they_are() -> None:
    own = table_of([1.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"], [0, 0, 0, 0])
    worse = table_of([0.0, 1.0, 1.0, 0.0], ["x", "b", "c", "d"], [1, 2, 0, 0])
    idle = table_of([1.0, 1.0, 1.0, 0.0], ["a", "b", "c", "d"], [0, 0, 0, 0])
    found = arms.compare(own, {"worse": worse, "idle": idle}, Drawing(200))
    one = found["worse"]["s"]
    assert one.difference and one.of_changed and one.other_answers
    assert (one.rows, one.changed) == (4, 2)
    assert (one.difference.value, one.difference.rows, one.difference.ours.value) == (-0.25, 4, 0.5)
    assert (one.of_changed.value, one.of_changed.rows, one.of_changed.p_holm) == (-0.5, 2, None)
    assert (one.other_answers.value, one.other_answers.rows) == (0.5, 2)
    assert one.difference.p_holm == one.difference.p, "an intervention that changed nothing is no test"
    other = found["idle"]["s"]
    assert (other.changed, other.difference, other.of_changed, other.other_answers, other.judge) == (0, *[None] * 4)
