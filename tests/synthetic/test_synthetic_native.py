"""LLaVA, CUB, COCO, VSR, POPE and own data of the sample: formats, dirt, and answers that are true."""

import csv
import json
import re
from collections import Counter

import numpy as np
import pytest
from helpers.sample_files import ROWS, benchmark, lines, llava, training
from PIL import Image

from vpt_data.synthetic import write_sample
from vpt_data.synthetic.pools import SCENES
from vpt_data.synthetic.scenes import PALETTE, stream


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "raw"
    write_sample(out, ROWS, 0)
    return out


def test_llava_forms_and_dirt(root):
    records = llava(root)
    shown = [record for record in records if "image" in record]
    bare = [record for record in shown if not record["conversations"]]
    assert len(bare) == 1
    assert sum(not turn["value"] for record in shown for turn in record["conversations"]) == 1
    again = Counter(json.dumps(record) for record in records)
    assert sorted(again.values())[-2:] == [1, 2]
    talks = [record for record in records if "image" not in record]
    assert records[-len(talks) :] == talks and {record["model"] for record in talks} == {""}
    assert sum("<image>" in str(record) for record in talks) == 1
    for record in shown:
        assert isinstance(record["id"], int) == record["image"].startswith("gqa/")
        assert (root / record["image"]).is_file()
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert "".join(turn["value"] for turn in turns).count("<image>") == (1 if turns else 0)
    first = [record["conversations"][0]["value"] for record in shown if record["conversations"]]
    forms = {
        "short": sum("single word or phrase" in text for text in first),
        "choice": sum("given choices directly" in text for text in first),
        "ocr": sum("Reference OCR token: " in text for text in first),
        "region": sum("this region:" in text or "region this sentence" in text for text in first),
    }
    assert all(n >= 12 for n in forms.values())
    free = [
        text for text in first if not any(w in text for w in ("single word", "choices directly", "OCR token", "region"))
    ]
    at_end = sum(text.endswith("\n<image>") for text in free)
    assert at_end == sum(text.endswith("<image>") for text in first)
    assert 0.08 < at_end / len(free) < 0.16
    prefixes = Counter(record["image"].split("/")[0] for record in shown)
    assert set(prefixes) == {"coco", "gqa", "ocr_vqa", "textvqa", "vg"}


def test_llava_choices_hold_the_answer_once(root):
    letters = Counter()
    for record in llava(root):
        if (
            record.get("image")
            and record["conversations"]
            and "choices directly" in record["conversations"][0]["value"]
        ):
            options = re.findall(r"\n([ABCD])\. (.+)", record["conversations"][0]["value"])
            assert len({option for _, option in options}) == 4
            letters[record["conversations"][1]["value"]] += 1
    assert set(letters) == set("ABCD")


def test_pretraining_pairs(root):
    records = json.loads((root / "llava_pretrain/blip_laion_cc_sbu_558k.json").read_text())
    for record in records:
        assert record["image"] == f"{record['id'][:5]}/{record['id']}.jpg" and len(record["id"]) == 9
        assert (root / "llava_pretrain/images" / record["image"]).is_file()
        assert len(record["conversations"]) == 2
    assert {text.startswith("<image>") for text in (r["conversations"][0]["value"] for r in records)} == {
        True,
        False,
    }


def test_regions_hold_the_color_they_are_described_with(root):
    """LLaVA's region turns name colour and kind of what is in the box; the pixels there must agree."""
    found = 0
    for record in llava(root):
        turns = [turn["value"] for turn in record["conversations"]]
        if not turns or "short description for this region" not in turns[0] or not turns[1]:
            continue
        shares = [float(v) for v in re.findall(r"\d+\.\d+", turns[0])]
        color = turns[1].split()[1]
        with Image.open(root / record["image"]) as image:
            wide, high = image.size
            box = [v * side for v, side in zip(shares, (wide, high, wide, high), strict=True)]
            pixels = np.asarray(image.convert("RGB").crop(box), int)
        assert (abs(pixels - PALETTE[color]).sum(axis=2) < 90).mean() > 0.08, record
        found += 1
    assert found > 10


def test_cub_lists_agree_with_each_other_and_with_the_questions(root):
    folder = root / "cub/CUB_200_2011"
    table = {
        name: [line.split(" ") for line in lines(folder / f"{name}.txt")]
        for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
    }
    names = {row[1]: row[0] for row in table["images"]}
    boxes = {row[0]: [float(v) for v in row[1:]] for row in table["bounding_boxes"]}
    split = dict(table["train_test_split"])
    looks = dict(line.split(" ") for line in lines(folder / "attributes/attributes.txt"))
    labels = [line.split(" ") for line in lines(folder / "attributes/image_attribute_labels.txt")]
    assert sorted(map(len, labels))[-3:] == [5, 6, 6]
    has = {(image, looks[look]) for image, look, present, *_ in labels if present == "1"}
    for image, label in table["image_class_labels"]:
        assert dict(table["classes"])[label] == next(n for n, i in names.items() if i == image).split("/")[0]
    birds = [(row["image"], row["question"], row["answer"], row["bboxs"][0], "1") for row in training(root, "cub")[0]]
    det, records = benchmark(root, "cub")
    for row, record in zip(det, records, strict=True):
        birds.append((row["img_path"][8:], row["expression"], record["conversations"][3]["value"], row["bbox"], "0"))
    for name, question, answer, box, part in birds:
        image = names[name]
        x, y, w, h = boxes[image]
        assert box == [x, y, x + w, y + h] and split[image] == part
        asked = re.fullmatch(r"Does the bird in the picture have (\S+) (\w+) and (\S+) (\w+)\?", question).groups()
        true = all(
            any((image, f"has_{what}_{kind}::{look}") in has for kind in ("color", "shape", "pattern"))
            for look, what in (asked[:2], asked[2:])
        )
        assert answer == ("Yes" if true else "No")
    modes = Counter()
    for name in names:
        with Image.open(folder / "images" / name) as image:
            modes[image.mode, image.getexif().get(0x0112)] += 1
    assert modes["L", None] == 1 and modes["RGB", 0] == 1 and set(modes) == {("L", None), ("RGB", None), ("RGB", 0)}


def test_coco_annotations_and_vsr_statements(root):
    coco = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    images = {image["file_name"]: image for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert set(images) == {path.name for path in (root / "coco/train2017").iterdir()}
    for name, image in images.items():
        assert image["id"] == int(name[:-4])
        with Image.open(root / "coco/train2017" / name) as opened:
            assert opened.size == (image["width"], image["height"])
    things = {}
    for row in coco["annotations"]:
        things.setdefault(row["image_id"], {}).setdefault(names[row["category_id"]], []).append(row["bbox"])
        if row["iscrowd"]:
            assert {type(v) for v in row["bbox"]} == {int}
            assert sum(row["segmentation"]["counts"]) == np.prod(row["segmentation"]["size"])
    assert len({row["id"] for row in coco["annotations"]}) == len(coco["annotations"])
    assert any(row["iscrowd"] for row in coco["annotations"])
    assert len(images) - len(things) == 2
    for split in ("random", "zeroshot"):
        rows = [json.loads(line) for line in lines(root / f"vsr/splits/{split}/train.jsonl")]
        assert abs(sum(row["label"] for row in rows) - len(rows) / 2) <= 1
        for row in rows:
            subject, object_ = re.fullmatch(rf"The (.+) is {row['relation']} the (.+)\.", row["caption"]).groups()
            found = things[int(row["image"][:-4])]
            ((x, y, w, h),), ((u, v, s, t),) = found[subject], found[object_]
            right = {
                "at the left side of": x < u, "at the right side of": x > u, "above": y < v, "below": y > v,
                "inside": w < s, "surrounding": w > s, "in front of": w * h < s * t, "behind": w * h > s * t,
            }[row["relation"]]  # fmt: skip
            if "front" not in row["relation"] and "behind" not in row["relation"]:
                assert right == bool(row["label"])
            assert isinstance(row["vote_true_validator_id"], str)
            assert ("subj" in row) == (split == "zeroshot") != ("reference_frame" in row)


def test_pope_asks_for_what_is_there_and_for_what_is_not(root):
    numbers = range(SCENES["pope"].first, SCENES["pope"].first + 10)
    there = {}
    for n in numbers:
        facts = SCENES["pope"].draw(stream(0, "pope", n))[1]
        there[SCENES["pope"].name(0, n)] = {thing.kind for thing in facts.things}
    files = {}
    for name in ("random", "popular", "adversarial"):
        rows = [json.loads(line) for line in lines(root / f"pope/coco/coco_pope_{name}.json")]
        assert [row["question_id"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            kind = re.fullmatch(r"Is there an? (.+) in the im(?:an|a)ge\?", row["text"])[1]
            assert (kind in there[row["image"]]) == (row["label"] == "yes")
            assert (root / "coco/val2014" / row["image"]).is_file()
        assert set(Counter(row["image"] for row in rows).values()) == {6}
        assert Counter(row["label"] for row in rows) == {"yes": len(rows) / 2, "no": len(rows) / 2}
        files[name] = [row["text"] for row in rows]
    assert sum("imange" in text for text in files["random"]) == 2
    assert files["popular"] != files["adversarial"]


def test_own_data(root):
    with (root / "own/receipts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "question", "answer", "x0", "y0", "x1", "y1"]
    assert sum(not row["answer"] for row in rows) == 1
    assert sum(int(row["x0"]) > int(row["x1"]) for row in rows) == 1
    signs_rows = [json.loads(line) for line in lines(root / "own/signs.jsonl")]
    assert all(re.fullmatch(r"Was steht als (Wort|Zahl) auf dem \w+ Schild\?", row["frage"]) for row in signs_rows)
    instances = json.loads((root / "own/instances.json").read_text())
    ids = {image["file_name"]: image["id"] for image in instances["images"]}
    kinds = {category["id"]: category["name"] for category in instances["categories"]}
    boxes = Counter((row["image_id"], kinds[row["category_id"]]) for row in instances["annotations"])
    for line in lines(root / "own/questions.jsonl"):
        row = json.loads(line)
        n = boxes[ids[row["image"]], row["category"]]
        assert n == (int(row["answer"]) if row["answer"].isdigit() else 1)
    for name in {row["file"] for row in rows} | {row["bild"] for row in signs_rows} | set(ids):
        assert (root / "own/images" / name).is_file()
