"""Files in which the owners give boxes and statements themselves: CUB, COCO, VSR, POPE, and own data."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, product

from PIL import Image

from vpt_data.synthetic.formats import Row, Writer, coco_bbox, number
from vpt_data.synthetic.pages import Page
from vpt_data.synthetic.pools import Shot, held_quota, quota
from vpt_data.synthetic.questions import VSR_PHRASES, a, field_ask, scene_asks, sign_ask
from vpt_data.synthetic.scenes import BIRD_ATTRIBUTES, COCO_IDS, Bird, Scene, bird, ground, stream, union

_FAMILIES = ("Finch", "Warbler", "Tern", "Wren", "Jay")
_CUB = "cub/CUB_200_2011"
_SPECIES = tuple(product(_FAMILIES, BIRD_ATTRIBUTES["has_crown_color"]))
#: Birds in the lists that no question is about; the first of them is a greyscale JPEG.
_SPARE_BIRDS = 2
#: COCO images without annotations; the first of them is a greyscale JPEG.
_EMPTY_IMAGES = 2


def bird_counts(rows: int) -> tuple[int, int]:
    """How many birds there are to train on and to test on."""
    return -(-quota("cub", rows) // 2), -(-held_quota("cub", rows) // 2)


def extra_images(rows: int) -> int:
    """How many images this module draws: birds, and COCO images without annotations."""
    return sum(bird_counts(rows)) + _SPARE_BIRDS + _EMPTY_IMAGES


def write_cub(writer: Writer, rows: int, seed: int) -> tuple[list[Shot[Bird]], list[Shot[Bird]]]:
    """CUB's lists and images; returns the birds to train on and those to test on.

    Dirt: the second bird's box ends on the border, the third's beyond it; one greyscale image; one image
    with the invalid EXIF orientation 0; two attribute lines with six fields instead of five.
    """
    train, held = bird_counts(rows)
    shots: list[Shot[Bird]] = []
    for i in range(train + held + _SPARE_BIRDS):
        family, crown = _SPECIES[i % len(_SPECIES)]
        image, facts = bird(stream(seed, "cub", i), crown)
        if i in (1, 2):
            x0, y0, _, y1 = facts.box
            facts = dataclasses.replace(facts, box=(x0, y0, facts.size[0] + (0, 9)[i - 1], y1))
        species = f"{crown.capitalize()}_crowned_{family}"
        folder = f"{i % len(_SPECIES) + 1:03d}.{species}"
        name = f"{folder}/{species.title()}_{i // len(_SPECIES) + 1:04d}_{number(seed, i)}.jpg"
        exif = Image.Exif()
        if i == 3:
            exif[0x0112] = 0
        shown = image.convert("L") if i == train + held else image
        writer.image(f"{_CUB}/images/{name}", shown, exif)
        shots.append(Shot(name, f"{_CUB}/images/{name}", facts))
    _write_cub_lists(writer, shots, train, seed)
    return shots[:train], shots[train : train + held]


def _write_cub_lists(writer: Writer, shots: Sequence[Shot[Bird]], train: int, seed: int) -> None:
    ids = {shot.name: i for i, shot in enumerate(sorted(shots, key=lambda shot: shot.name), start=1)}
    trained = {shot.name for shot in shots[:train]}
    ordered = sorted(shots, key=lambda shot: shot.name)
    classes = [f"{i + 1:03d}.{crown.capitalize()}_crowned_{family}" for i, (family, crown) in enumerate(_SPECIES)]
    attributes = [(group, look) for group, looks in BIRD_ATTRIBUTES.items() for look in looks]
    writer.text(f"{_CUB}/images.txt", [f"{ids[shot.name]} {shot.name}" for shot in ordered])
    labels = [f"{ids[shot.name]} {int(shot.name[:3])}" for shot in ordered]
    writer.text(f"{_CUB}/image_class_labels.txt", labels)
    writer.text(f"{_CUB}/classes.txt", [f"{i + 1} {name}" for i, name in enumerate(classes)])
    split = [f"{ids[shot.name]} {int(shot.name in trained)}" for shot in ordered]
    writer.text(f"{_CUB}/train_test_split.txt", split)
    boxes = [
        f"{ids[shot.name]} {x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f}"
        for shot in ordered
        for x0, y0, x1, y1 in [shot.facts.box]
    ]
    writer.text(f"{_CUB}/bounding_boxes.txt", boxes)
    named = [f"{i} {group}::{look}" for i, (group, look) in enumerate(attributes, start=1)]
    writer.text(f"{_CUB}/attributes/attributes.txt", named)
    seen: list[str] = []
    for shot in ordered:
        rng = stream(seed, "certainty", shot.name)
        for i, (group, look) in enumerate(attributes, start=1):
            present = int(shot.facts.looks[group] == look)
            surplus = " 0" if len(seen) in (4, 9) else ""
            time = rng.randrange(1000, 9999) / 1000
            seen.append(f"{ids[shot.name]} {i} {present} {rng.randint(2, 4)}{surplus} {time}")
    writer.text(f"{_CUB}/attributes/image_attribute_labels.txt", seen)


def write_coco(writer: Writer, shots: Sequence[Shot[Scene]], seed: int) -> None:
    """`instances_train2017.json` of all scenes in `coco/train2017`, and two images without annotations.

    Each thing is one annotation; in every fourth scene the group is one crowd with integer coordinates
    and an RLE.
    """
    images = [_coco_image(shot.name, *shot.facts.size) for shot in shots]
    annotations: list[Row] = []
    for i, shot in enumerate(shots):
        annotations += _coco_annotations(shot, crowd=i % 4 == 0)
    for n in range(_EMPTY_IMAGES):
        name = f"{number(seed, 990_000 + n):012d}.jpg"
        image = ground(stream(seed, "empty", n), (640, 480))
        writer.image(f"coco/train2017/{name}", image.convert("L") if n == 0 else image)
        images.append(_coco_image(name, 640, 480))
    for i, annotation in enumerate(annotations, start=1):
        annotation["id"] = i
    path = "coco/annotations/instances_train2017.json"
    writer.text(path, [_coco_json(images, annotations)], len(annotations))


def _coco_json(images: Sequence[Row], annotations: Sequence[Row]) -> str:

    categories = [{"supercategory": "thing", "id": i, "name": kind} for kind, i in COCO_IDS.items()]
    info = {"description": "drawn scenes in the layout of COCO 2017", "version": "1.0", "year": 2017}
    licenses = [{"url": "", "id": 1, "name": "No restrictions"}]
    return json.dumps(
        {
            "info": info,
            "licenses": licenses,
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
    )


def _coco_image(name: str, wide: int, high: int) -> Row:
    return {"license": 1, "file_name": name, "height": high, "width": wide, "id": int(name[-16:-4])}


def _coco_annotations(shot: Shot[Scene], crowd: bool) -> list[Row]:
    found: list[Row] = []
    (wide, high), image_id = shot.facts.size, int(shot.name[-16:-4])
    for motif in shot.facts.motifs:
        if motif.form == "group" and crowd:
            x0, y0, x1, y1 = union(thing.box for thing in motif.things)
            # Column-major run lengths of background and box in turn, as COCO writes uncompressed masks.
            gap = high - (y1 - y0)
            counts = [x0 * high + y0, y1 - y0, *((gap, y1 - y0) * (x1 - x0 - 1))]
            counts.append(wide * high - sum(counts))
            mask: object = {"counts": counts, "size": [high, wide]}
            found.append(_coco_row(motif.things[0].kind, image_id, [x0, y0, x1 - x0, y1 - y0], mask, 1))
            continue
        for thing in motif.things:
            x, y, w, h = coco_bbox(thing.box)
            found.append(_coco_row(thing.kind, image_id, [x, y, w, h], [[x, y, x + w, y, x + w, y + h, x, y + h]], 0))
    return found


def _coco_row(kind: str, image_id: int, bbox: Sequence[float], mask: object, crowd: int) -> Row:
    area = round(bbox[2] * bbox[3], 4)
    row: Row = {"segmentation": mask, "area": area, "iscrowd": crowd, "image_id": image_id}
    return row | {"bbox": bbox, "category_id": COCO_IDS[kind], "id": 0}


def write_vsr(writer: Writer, shots: Sequence[Shot[Scene]], seed: int) -> None:
    """Statements about annotated COCO things, true and false in turn: both training splits of VSR.

    Dirt as the owner has it: votes are lists inside strings, `reference_frame` is null or a float.
    """
    for split in ("random", "zeroshot"):
        truths = cycle((True, False))
        rows: list[Row] = []
        for shot in shots:
            rng = stream(seed, "vsr", split, shot.name)
            for ask in scene_asks(shot.facts, rng, truths, VSR_PHRASES, relations_only=True):
                if ask.answer not in ("Yes", "No"):
                    continue
                rows.append(_vsr_row(shot.name, ask.statement, ask.relation, ask.answer == "Yes", len(rows)))
                if split == "zeroshot":
                    del rows[-1]["reference_frame"]
                    rows[-1] |= {"subj": ask.names[0], "obj": ask.names[1]}
        writer.lines(f"vsr/splits/{split}/train.jsonl", rows)


def _vsr_row(image: str, statement: str, relation: str, label: bool, i: int) -> Row:
    return {
        "image": image,
        "image_link": f"http://images.cocodataset.org/train2017/{image}",
        "caption": statement,
        "label": int(label),
        "relation": relation,
        "annotator_id": i % 30 + 1,
        "vote_true_validator_id": "[2, 19]" if label else "[]",
        "vote_false_validator_id": "[]" if label else "[2, 10]",
        "reference_frame": float(i % 3) if i % 5 == 0 else None,
    }


def write_genome(writer: Writer, shots: Sequence[Shot[Scene]]) -> None:
    """Visual Genome's list of its images; in this world none of them is COCO's."""
    numbers = sorted({int(shot.name.rpartition(".")[0].rpartition("_")[2]) for shot in shots})
    writer.array("vg/image_data.json", [{"image_id": number, "coco_id": None} for number in numbers])


def write_pope(writer: Writer, shots: Sequence[Shot[Scene]], seed: int) -> None:
    """Three files of six questions an image: the same three things that are there, three that are not.

    The absent ones are drawn by chance, are the most frequent ones, or those most often seen beside what
    is there. Dirt: two questions of the random file have the owner's old misspelling.
    """
    together: dict[str, Counter[str]] = {kind: Counter() for kind in COCO_IDS}
    for shot in shots:
        kinds = {thing.kind for thing in shot.facts.things}
        for kind in kinds:
            together[kind].update(kinds)
    rows: dict[str, list[Row]] = {"random": [], "popular": [], "adversarial": []}
    for shot in shots:
        there = sorted({thing.kind for thing in shot.facts.things})
        absent = sorted(set(COCO_IDS) - set(there))
        beside = sum((together[kind] for kind in there), Counter[str]())
        asked = stream(seed, "pope", shot.name).sample(there, 3)
        orders = {
            "random": stream(seed, "pope", "absent", shot.name).sample(absent, 3),
            "popular": sorted(absent, key=lambda kind: (-together[kind][kind], kind))[:3],
            "adversarial": sorted(absent, key=lambda kind: (-beside[kind], kind))[:3],
        }
        for name, missing in orders.items():
            for yes, no in zip(asked, missing, strict=True):
                rows[name] += [_pope_row(shot.name, yes, "yes"), _pope_row(shot.name, no, "no")]
    for name, asked_rows in rows.items():
        for i, row in enumerate(asked_rows, start=1):
            row["question_id"] = i
            if name == "random" and i in (5, 8):
                row["text"] = row["text"].replace("image", "imange")
        writer.lines(f"pope/coco/coco_pope_{name}.json", asked_rows)


def _pope_row(image: str, kind: str, label: str) -> Row:
    return {"question_id": 0, "image": image, "text": f"Is there {a(kind)} in the image?", "label": label}


def write_own(writer: Writer, pages: Mapping[str, Sequence[Shot[Page]]], shelves: Sequence[Shot[Scene]]) -> None:
    """Own data: receipts in a CSV, signs with German questions as JSON lines, COCO boxes and questions.

    Dirt in the CSV: one empty answer, one box with swapped corners.
    """
    table = io.StringIO()
    receipts = csv.writer(table, lineterminator="\n")
    receipts.writerow(("file", "question", "answer", "x0", "y0", "x1", "y1"))
    asks = [(shot.name, field_ask(field)) for shot in pages["own_receipts"] for field in shot.facts.fields[:4]]
    for i, (file, ask) in enumerate(asks):
        x0, y0, x1, y1 = ask.boxes[0]
        box = (x1, y1, x0, y0) if i == 2 else (x0, y0, x1, y1)
        receipts.writerow((file, ask.question, "" if i == 5 else ask.answer, *box))
    writer.text("own/receipts.csv", table.getvalue().splitlines(), len(asks))
    rows: list[Row] = []
    for shot in pages["own_signs"]:
        for field in shot.facts.fields[:4]:
            ask = sign_ask(field, "german")
            rows.append(
                {
                    "bild": shot.name,
                    "frage": ask.question,
                    "antwort": ask.answer,
                    "kasten": list(ask.boxes[0]),
                }
            )
    writer.lines("own/signs.jsonl", rows)
    _write_shelves(writer, shelves)


def _write_shelves(writer: Writer, shelves: Sequence[Shot[Scene]]) -> None:
    images, annotations, questions = [], [], []
    for i, shot in enumerate(shelves, start=1):
        images.append({"id": i, "file_name": shot.name, "width": shot.facts.size[0], "height": shot.facts.size[1]})
        annotations += [row | {"image_id": i} for row in _coco_annotations(_numbered(shot, i), crowd=False)]
        for motif in shot.facts.motifs[:3]:
            thing, n = motif.things[0], len(motif.things)
            question, answer = f"What color is the {thing.kind}?", thing.color
            if motif.form == "group":
                question, answer = f"How many things of the kind {thing.kind} are there?", str(n)
            questions.append({"image": shot.name, "question": question, "answer": answer, "category": thing.kind})
    for i, annotation in enumerate(annotations, start=1):
        annotation["id"] = i
    writer.text("own/instances.json", [_coco_json(images, annotations)], len(annotations))
    writer.lines("own/questions.jsonl", questions)


def _numbered(shot: Shot[Scene], i: int) -> Shot[Scene]:
    return dataclasses.replace(shot, name=f"{i:012d}.jpg")
