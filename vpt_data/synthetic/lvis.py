"""LVIS's annotations of the drawn COCO scenes: what can be counted, what is absent, what is not annotated in full."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vpt_data.synthetic.formats import Row, Writer, coco_bbox
from vpt_data.synthetic.pools import Shot
from vpt_data.synthetic.scenes import COCO_IDS, Scene, stream

_URL = "http://images.cocodataset.org/train2017/"


def write_lvis(writer: Writer, shots: Sequence[Shot[Scene]], seed: int) -> None:
    """`lvis_v1_train.json` of scenes in `coco/train2017`.

    Dirt, as in the real file: in every fourth image its first category is not exhaustive; every fifth has no
    instances, only categories that are absent; the last has neither.
    """
    images: list[Row] = []
    annotations: list[Row] = []
    for i, shot in enumerate(shots):
        things = [] if i % 5 == 4 else shot.facts.things
        kinds = list(dict.fromkeys(thing.kind for thing in things if thing.kind in COCO_IDS))
        absent = sorted(COCO_IDS.keys() - {thing.kind for thing in shot.facts.things})
        wide, high = shot.facts.size
        image_id = int(shot.name[-16:-4])
        chosen = stream(seed, "lvis", i).sample(absent, 3) if i + 1 < len(shots) else []
        images.append(
            {
                "id": image_id, "height": high, "width": wide, "license": 1, "coco_url": f"{_URL}{shot.name[-16:]}",
                "neg_category_ids": [COCO_IDS[kind] for kind in chosen],
                "not_exhaustive_category_ids": [COCO_IDS[kind] for kind in kinds[:1] if i % 4 == 3],
            }
        )  # fmt: skip
        if i + 1 == len(shots):
            continue
        for thing in things:
            if thing.kind in COCO_IDS:
                numbered: Row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": COCO_IDS[thing.kind]}
                annotations.append({**numbered, "bbox": coco_bbox(thing.box), "segmentation": []})
    categories = [{"id": i, "name": kind.replace(" ", "_"), "frequency": "f"} for kind, i in COCO_IDS.items()]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    writer.text("lvis/lvis_v1_train.json", [json.dumps(content)], len(images))
