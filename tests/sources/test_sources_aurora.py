"""AURORA's depth tasks from the prepared files to a corpus: dialogues word by word, one tokenizer, sound rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import end_to_end

from vpt_data import recipe
from vpt_data.dialogue import reasoning
from vpt_data.dialogue.tokens import depth
from vpt_data.errors import RawError, UsageError
from vpt_data.exchange.rerender import rerender
from vpt_data.inspect.check import check
from vpt_data.inspect.view import signals
from vpt_data.sources import SOURCES, locate
from vpt_data.sources.base import Job

SHARED = Path(__file__).parents[3] / "shared/data/aurora"
QUESTION = (
    "<image>\nMultiple points are circled on the image, labeled by letters beside each circle. "
    "Which point is the closest to the camera?"
)
THINK = (
    "\nTo answer this question, let's think through it step by step, and we know the image is 336 x 336. First, what "
    "are the coordinates of points in the image? Second, what is the depth map for the image? Which point has a higher "
    "pixel value on the depth map? Remember, higher values indicate that the point is closer to the camera."
)
POINTED: dict[str, Any] = {
    "image": "ade20k/images/training/a.jpg",
    "marked": "ade20k/images_marked/a.png",
    "points": [{"label": "B", "x": 0, "y": 188, "depth": 15}, {"label": "A", "x": 191, "y": 77, "depth": 38}],
    "codes": list(range(100)),
    "tokenizer_id": "one",
}


def written(root: Path, *rows: dict[str, Any], name: str = "depth_points", part: str = "") -> Path:
    (root / "aurora").mkdir(parents=True, exist_ok=True)
    (root / f"aurora/{name}{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def job(root: Path, dataset: str = "points") -> Job:
    return locate.find(root, "aurora_depth", [dataset]).jobs[0]


def drops(root: Path) -> Iterator[tuple[int, str]]:
    for chunk in SOURCES["aurora_depth"].read(job(root)):
        for drop in chunk.drops:
            yield drop.row, drop.detail


@pytest.fixture(scope="module")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("aurora_depth", sample_root, tmp_path_factory.mktemp("aurora") / "out", mode="embed")


def test_a_record_becomes_an_annotation(tmp_path: Path) -> None:
    [chunk] = SOURCES["aurora_depth"].read(job(written(tmp_path, POINTED)))
    [row] = chunk.annotations.to_pylist()
    assert row["answers"] == ["A"] and row["question"] is None
    assert row["images"] == [{"path": "ade20k/images_marked/a.png", "width": 336, "height": 336}]
    assert [(region["label"], region["box"]) for region in row["regions"]] == [
        ("A", [187.0, 73.0, 196.0, 82.0]), ("B", [0.0, 184.0, 5.0, 193.0]),
    ]  # fmt: skip
    meta = json.loads(row["meta"])
    assert meta == {"tokenizer_id": "one", "codes": list(range(100)), "points": [["A", 191, 77, 38], ["B", 0, 188, 15]]}
    assert chunk.tokenizers == {"one"}


@pytest.mark.parametrize(("change", "words"), [
    ({"codes": list(range(99))}, "Expected `array` of length >= 100"),
    ({"codes": [128] * 100}, "<= 127"),
    ({"points": POINTED["points"][:1]}, "length >= 2"),
    ({"points": [POINTED["points"][0]] * 2}, "two points have one letter, or two are the closest"),
    ({"points": [{**POINTED["points"][0], "label": "<DEPTH_1>"}, POINTED["points"][1]]}, "matching regex"),
    ({"points": [{**POINTED["points"][0], "x": 336}, POINTED["points"][1]]}, "<= 335"),
    ({"tokenizer_id": ""}, "length >= 1"),
])  # fmt: skip
def test_a_record_that_cannot_be_used_is_dropped_with_a_reason(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    [(row, detail)] = drops(written(tmp_path, POINTED, {**POINTED, **change}, POINTED))
    assert row == 1 and words in detail


def test_codes_of_two_tokenizers_are_refused(tmp_path: Path) -> None:
    other = {**POINTED, "tokenizer_id": "two"}
    with pytest.raises(RawError) as caught:
        list(drops(written(tmp_path, POINTED, other)))
    assert str(caught.value) == (
        "aurora/depth_points.jsonl: one record has codes of the tokenizer 'one' and one of 'two', and equal tokens of "
        "two tokenizers mean different things; make the file again with one of them."
    )
    (tmp_path / "aurora/depth_points.jsonl").unlink()
    for part, row in (("-1", POINTED), ("-2", other)):
        written(tmp_path, row, part=part)
    with pytest.raises(RawError) as caught:
        end_to_end.build("aurora_depth", tmp_path, tmp_path / "out")
    assert str(caught.value) == (
        "aurora/depth_points-2.jsonl: its depth codes are of the tokenizer 'two', those of aurora/depth_points-1.jsonl "
        "of 'one', and equal tokens of two tokenizers mean different things; make one of the files again with the "
        "other's tokenizer."
    )


def test_the_sample_gives_a_sound_corpus(corpus: Path) -> None:
    account = end_to_end.account(corpus)
    kept = {name: part.kept for name, part in account.items()}
    assert kept["depth_map"] > kept["depth_direct"] == kept["depth_reasoning"] >= 5
    assert all(part.read == part.kept for part in account.values())
    assert check(corpus).findings == []
    rows = end_to_end.rows(corpus)
    assert len({json.loads(row["meta"])["tokenizer_id"] for row in rows}) == 1
    assert "A depth map is 100 codes of 0 to 127" in (corpus / "README.md").read_text()


def test_markers_are_no_problems(corpus: Path) -> None:
    """They are far smaller than a cell, as they should be."""
    assert signals.measure(end_to_end.table(corpus), frozenset()).problems == {}


def test_there_is_nothing_to_render_for_another_encoder(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"none of its rows looks twice or calls an encoder; there is nothing to render"
    ):
        rerender(corpus, tmp_path / "out", "sam", None)
    assert not (tmp_path / "out").exists()


def test_direct_and_reasoned_rows_are_over_the_same_pictures(corpus: Path) -> None:
    shown = {
        take: {row["images"][0]["path"] for row in end_to_end.rows(corpus) if row["take"] == take}
        for take in ("depth_direct", "depth_reasoning")
    }
    assert shown["depth_direct"] == shown["depth_reasoning"]


def test_every_dialogue_is_the_published_one(corpus: Path) -> None:
    """Put together here once more from what a row holds besides its messages."""
    for row in end_to_end.rows(corpus):
        meta, (question, answer) = json.loads(row["meta"]), (turn["content"] for turn in row["messages"])
        codes = "<DEPTH_START>" + "".join(f"<DEPTH_{code}>" for code in meta["codes"]) + "<DEPTH_END>"
        if row["template"] == "depth_map":
            assert (question, answer) == ("<image>\nWhat is the depth map for the image?", codes)
            continue
        [gold] = row["answers"]
        assert gold == max(meta["points"], key=lambda point: point[3])[0]
        if row["template"] == "depth_points":
            assert (question, answer) == (QUESTION, f"({gold})")
            continue
        places = ",".join(f"Point {label} is located at (x = {x} y = {y})" for label, x, y, _ in sorted(meta["points"]))
        assert question == QUESTION + THINK
        assert answer == (
            f"{places}.The depth map for the image is {codes}. Since point {gold} has a higher pixel value on the "
            f"depth map, the answer is that point {gold} is closer to the camera."
        )
        assert answer.count("<DEPTH") == 102 and depth.decode(answer)[0].usable


@pytest.mark.skipif(not SHARED.exists(), reason="the published selection is not here (../shared/data/aurora)")
def test_answers_over_the_published_points(tmp_path: Path) -> None:
    """In the published file the closest point is the last one."""
    given = json.loads((SHARED / "train_selection/point_label_mappings.json").read_text())
    rows = [
        {**POINTED, "marked": name, "points": [
            {"label": label, "x": point["coordinate"][0], "y": point["coordinate"][1], "depth": int(point["depth"])}
            for label, point in points.items()
        ]}
        for name, points in given.items()
    ]  # fmt: skip
    [chunk] = SOURCES["aurora_depth"].read(job(written(tmp_path, *rows)))
    rule: Any = None
    said = reasoning.closest_point(chunk.annotations, rule).answer.to_pylist()
    assert said == [f"({list(points)[-1]})" for points in given.values()]
    thought = reasoning.closest_point_by_depth(chunk.annotations, rule).answer.to_pylist()
    assert all(text.endswith(f"point {list(points)[-1]} is closer to the camera.")
               for text, points in zip(thought, given.values(), strict=True))  # fmt: skip
    assert thought[0].startswith(
        "Point A is located at (x = 191 y = 77),Point B is located at (x = 73 y = 188),Point C"
    )


def test_a_limit_and_an_empty_file_are_whole_tables(tmp_path: Path) -> None:
    given = replace(job(written(tmp_path, POINTED, POINTED)), limit=1)
    assert [len(chunk.row) for chunk in SOURCES["aurora_depth"].read(given)] == [1]
    empty = written(tmp_path, {})
    assert len(list(drops(empty))) == 1
    assert (
        reasoning.depth_map(next(SOURCES["aurora_depth"].read(job(empty))).annotations, None).answer.to_pylist() == []
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "dataset", "wanted"), [
    ("aurora_depth", "maps", 'set source = "aurora_depth" and dataset = "points", or another template'),
    ("pope", "coco_popular", 'set source = "aurora_depth" and dataset = "points", or another template'),
])  # fmt: skip
def test_a_template_without_its_records_is_refused(tmp_path: Path, source: str, dataset: str, wanted: str) -> None:
    text = f'[take.a]\nsource = "{source}"\ndataset = "{dataset}"\ntemplate = "depth_points"\ntask = "spatial"\n'
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(
        UsageError, match=r"take a: template depth_points is for records that hold what it says; "
    ) as caught:
        recipe.load(str(tmp_path / "wrong.toml"))
    assert wanted in str(caught.value)
