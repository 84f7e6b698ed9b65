"""AURORA's counting tasks from instances to a corpus: what is counted, what is not and why, dialogues word by word."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers import end_to_end

from vpt_data.dialogue.tokens import pixels
from vpt_data.errors import RawError, VptDataError
from vpt_data.inspect.check import check
from vpt_data.sources import SOURCES, aurora_count, locate
from vpt_data.sources.base import Chunk, Job

REAL = Path(__file__).parents[3] / "shared/data/raw"
CUP, BUS, ROSE = 1, 2, 3
QUESTIONS = {
    "Please perform bounding box prediction for each instance of {} in the image.",
    "Find instances of {}, return the x1 y1 x2 y2 coordinates of each instance.",
    "Find instances of {} in the image and return their bounding boxes.",
    "Return the bounding boxes of {}.",
    "Please locate all of the {} in this image.",
}
THINK = (
    "How many {0} are in the image?.\n To solve this, let\u2019s carefully analyze the image. First, identify the "
    "bounding boxes associated with the {0}. After that, count how many distinct bounding boxes correspond to {0}."
)


def lvis(number: int, absent: list[int] | None = None, partial: list[int] | None = None, **more: Any) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
    own = {"neg_category_ids": absent or [], "not_exhaustive_category_ids": partial or []}
    return {"id": number, "width": 400, "height": 300, "coco_url": url, **own, **more}


def coco(number: int) -> dict[str, Any]:
    return {"id": number, "width": 400, "height": 300, "file_name": f"{number}.jpg"}


def things(image: int, category: int, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"image_id": image, "category_id": category, "bbox": [10 * n, 5, 8, 9], **more} for n in range(count)]


def job(root: Path, images: list[dict[str, Any]], instances: list[dict[str, Any]], dataset: str = "lvis_train") -> Job:
    names = {CUP: "coffee_cup", BUS: "bus_(vehicle)", ROSE: "rose"}
    categories = [{"id": number, "name": name} for number, name in names.items()]
    file = "lvis/lvis_v1_train.json" if dataset == "lvis_train" else f"coco/annotations/instances_{dataset[5:]}.json"
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": instances, "categories": categories}
    (root / file).write_text(json.dumps(content))
    return locate.find(root, "aurora_count", [dataset]).jobs[0]


def read(given: Job) -> Chunk:
    [chunk] = SOURCES["aurora_count"].read(given)
    chunk.annotations.validate(full=True)
    return chunk


def tasks(chunk: Chunk) -> list[tuple[str, str | None, str, dict[str, int]]]:
    """Form, category, answer, and what was left out of each record."""
    assert chunk.form is not None
    metas = [json.loads(text) for text in chunk.annotations["meta"].to_pylist()]
    answers = [answers[0] for answers in chunk.annotations["answers"].to_pylist()]
    return [
        (form, meta["category"], answer, meta["left_out"])
        for form, meta, answer in zip(chunk.form.to_pylist(), metas, answers, strict=True)
    ]


def test_what_is_counted_and_what_is_left_out(tmp_path: Path) -> None:
    images = [lvis(1), lvis(2, absent=[ROSE], partial=[CUP]), lvis(3, absent=[BUS]), lvis(4), lvis(5), lvis(6)]
    instances = [
        *things(1, CUP, 2), *things(1, BUS, 2), *things(1, ROSE, 1),
        *things(2, CUP, 4), *things(5, CUP, 16), *things(6, CUP, 15),
    ]  # fmt: skip
    assert tasks(read(job(tmp_path, images, instances))) == [
        ("counted", "coffee cup", "2", {"fewer": 2}),
        ("none", "rose", "0", {"not_exhaustive": 1}),
        ("none", "bus (vehicle)", "0", {}),
        ("nothing", None, "0", {}),
        ("many", "coffee cup", "16", {}),
        ("counted", "coffee cup", "15", {}),
    ]


def test_in_coco_a_crowd_cannot_be_counted_and_all_others_are_absent(tmp_path: Path) -> None:
    instances = [*things(1, CUP, 2), *things(1, CUP, 1, iscrowd=1), *things(1, BUS, 1), *things(2, CUP, 1, iscrowd=1)]
    found = tasks(read(job(tmp_path, [coco(1), coco(2), coco(3)], instances, "coco_train2017")))
    assert found[0] == ("counted", "bus (vehicle)", "1", {"crowd": 1})
    assert (found[1][0], found[1][2], found[1][3]) == ("none", "0", {"crowd": 1})
    assert found[1][1] in ("bus (vehicle)", "rose") and found[2][0] == "none"


def test_boxes_and_paths(tmp_path: Path) -> None:
    [row] = read(job(tmp_path, [lvis(7)], things(7, CUP, 2))).annotations.to_pylist()
    assert row["images"] == [{"path": "coco/train2017/000000000007.jpg", "width": 400, "height": 300}]
    assert [(region["label"], region["box"]) for region in row["regions"]] == [
        ("coffee cup", [0, 5, 8, 14]), ("coffee cup", [10, 5, 18, 14]),
    ]  # fmt: skip
    [plain] = read(job(tmp_path, [coco(7)], [], "coco_val2017")).annotations.to_pylist()
    assert plain["images"][0]["path"] == "coco/val2017/7.jpg" and plain["split"] == "val"


def test_beyond_a_thousand_of_one_count_the_smallest_hashes_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aurora_count, "_CAP", 3)
    images = [lvis(number) for number in range(10)]
    instances = [thing for number in range(10) for thing in things(number, CUP, 1 + number % 2)]
    chosen = []
    for order in (1, -1):
        chunk = read(job(tmp_path, images[::order], instances))
        forms = dict(zip(chunk.annotations["source_id"].to_pylist(), chunk.form.to_pylist(), strict=True))  # type: ignore[union-attr]
        assert Counter(forms.values()) == {"counted": 6, "capped": 4}
        chosen.append(forms)
    assert chosen[0] == chosen[1]


def test_an_image_that_cannot_be_used_is_dropped(tmp_path: Path) -> None:
    images = [lvis(1, width=0), lvis(2, coco_url=""), lvis(3, absent=[CUP])]
    given = job(tmp_path, images, [])
    chunk = read(given)
    assert chunk.row.tolist() == [2] and [drop.row for drop in chunk.drops] == [0, 1]
    assert chunk.drops[0].detail == (
        "image 1 is 0x300 and called 'coco/train2017/000000000001.jpg'; expected a size and a name"
    )
    assert read(replace(given, limit=2)).row.tolist() == []


@pytest.mark.parametrize(("images", "instances", "words"), [
    ([lvis(1)], things(2, CUP, 1), "annotation 0 is of image 2 and category 1, and the file lacks one of them"),
    ([lvis(1)], things(1, 9, 1), "annotation 0 is of image 1 and category 9, and the file lacks one of them"),
    ([lvis(1), lvis(1)], [], "two images have one id, so that nobody knows whose instances are whose"),
    ([{"id": 1}], [], "not instances in COCO's format (Object missing required field `width`"),
])  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, images: list[dict[str, Any]], instances: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(RawError) as caught:
        read(job(tmp_path, images, instances))
    assert str(caught.value).startswith("lvis/lvis_v1_train.json: ") and words in str(caught.value)


@pytest.mark.parametrize("damage", [
    lambda data, chance: data[: chance.randrange(len(data))],
    lambda data, chance: data.replace(b"0", b"1", chance.randrange(1, 50)),
    lambda data, chance: gzip.compress(data)[: chance.randrange(20, 400)],
])  # fmt: skip
def test_damage_loses_nothing_in_silence(
    tmp_path: Path, sample_root: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    given = locate.find(sample_root, "aurora_count", ["lvis_train"]).jobs[0]
    data, chance = given.rows.path.read_bytes(), random.Random(0)
    count = len(json.loads(data)["images"])
    for seed in range(8):
        (tmp_path / f"{seed}.json").write_bytes(damage(data, chance))
        broken = replace(given, files={"rows": replace(given.rows, path=tmp_path / f"{seed}.json")})
        try:
            chunk = read(broken)
        except VptDataError as error:
            assert given.rows.name in str(error)
            continue
        assert sorted([*chunk.row.tolist(), *(drop.row for drop in chunk.drops)]) == list(range(count))


@pytest.mark.skipif(not REAL.exists(), reason="real rows are not here (../shared/data/raw)")
def test_a_real_coco_file_against_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    """Every pair of image and category is the one that is counted or left out with a reason; the counts are COCO's."""
    from pycocotools.coco import COCO

    given = locate.find(REAL, "aurora_count", ["coco_train2017"]).jobs[0]
    raw = given.rows.path.read_bytes()
    known = COCO()
    known.dataset = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    known.createIndex()
    chunk = read(given)
    assert chunk.row.tolist() == list(range(len(known.imgs))) and not chunk.drops
    pairs = 0
    for (form, category, answer, left_out), image in zip(
        tasks(chunk), chunk.annotations["source_id"].to_pylist(), strict=True
    ):
        here = known.loadAnns(known.getAnnIds(imgIds=[int(image)]))
        crowds = {each["category_id"] for each in here if each["iscrowd"]}
        counts = Counter(each["category_id"] for each in here if each["category_id"] not in crowds)
        assert left_out.get("crowd", 0) == len(crowds)
        if form == "none":
            assert not counts and category not in {known.cats[number]["name"] for number in crowds}
            continue
        [wanted] = known.getCatIds(catNms=[category])
        assert int(answer) == counts[wanted] == max(counts.values())
        assert left_out.get("fewer", 0) == len(counts) - 1
        pairs += 1 + sum(left_out.values())
    annotated = {(each["image_id"], each["category_id"]) for each in known.dataset["annotations"]}
    assert pairs == len(annotated) > 32


@pytest.fixture(scope="module")
def corpus(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build(
        "aurora_count", sample_root, tmp_path_factory.mktemp("count") / "out", "take.count_boxes.share=0.5"
    )


def test_the_sample_gives_a_sound_corpus(corpus: Path) -> None:
    kept = {name: part.kept for name, part in end_to_end.account(corpus).items()}
    assert kept["count_boxes"] >= 10 and kept["count_direct"] == kept["count_reasoning"] >= 10
    assert check(corpus).findings == []
    assert "A box is four pixel tokens" in (corpus / "README.md").read_text()


def test_every_dialogue_is_the_published_one(corpus: Path) -> None:
    """Put together here once more; the names of the sample's categories have simple plurals."""
    asked = Counter[str]()
    for row in end_to_end.rows(corpus):
        meta, (question, answer) = json.loads(row["meta"]), (turn["content"] for turn in row["messages"])
        name = {"bench": "benches"}.get(meta["category"], "") or meta["category"].replace("box", "boxe") + "s"
        question, count = question.removeprefix("<image>\n"), meta["count"]
        assert row["answers"] == [str(count)] and len(row["regions"]) == count
        texts = pixels.encode(pixels.decode(answer).boxes).to_pylist() if "<PIXEL" in answer else []
        lines = [f"Bounding box {number}: {text}" for number, text in enumerate(texts, 1)]
        assert len(texts) == (0 if row["template"] == "count_number" else count)
        if row["template"] == "count_boxes":
            asked.update(text for text in QUESTIONS if text.format(name) == question)
            head = f"Here are the bounding boxes for the {name}:"
            assert answer == ("\n".join([head, *lines]) if count else f"There are no {name} in the image.")
        elif row["template"] == "count_number":
            assert (question, answer) == (f"How many {name} are in the image?", str(count))
        else:
            head = f"Based on the analysis, here are the bounding boxes for the {name}:"
            last = f"Since there are {count} distinct bounding boxes and masks, we conclude there are {count} {name}."
            none = f"There are no {name} in the image. We conclude there are 0 {name}."
            assert question == THINK.format(name)
            assert answer == ("\n".join([head, *lines, last]) if count else none)
    assert asked.total() == sum(row["template"] == "count_boxes" for row in end_to_end.rows(corpus))
    assert len(asked) == 5


def test_pixel_tokens_name_the_box_on_the_squashed_image(tmp_path: Path) -> None:
    """A box of the left half and the upper third of a 400 x 300 image."""
    from vpt_data.dialogue import counting

    given = job(tmp_path, [lvis(1)], [{"image_id": 1, "category_id": CUP, "bbox": [0, 0, 200, 100]}])
    table = read(given).annotations
    table = table.set_column(table.schema.get_field_index("key"), "key", pa.array(["k"]))
    rule: Any = None
    [answer] = counting.boxes(table, rule).answer.to_pylist()
    assert answer.endswith("\nBounding box 1: (<PIXEL_0>,<PIXEL_0>,<PIXEL_167>,<PIXEL_111>)")
