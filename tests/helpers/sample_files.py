"""The sample raw root that the test modules look at, and readers of its files that know only the formats."""

import json

from vpt_data.synthetic.pools import SCENES
from vpt_data.synthetic.viscot import PARTS

ROWS = 1000
FOLDERS = {name: SCENES[part.pool].folder for name, part in PARTS.items() if part.pool in SCENES} | {
    "docvqa": "docvqa/documents",
    "textvqa": "textvqa/train_images",
    "textcap": "textvqa/train_images",
    "infographicsvqa": "infographicsvqa/images",
    "dude": "dude/images",
    "sroie": "sroie/images",
    "cub": "cub/CUB_200_2011/images",
}
BENCHMARKS = [name for name, part in PARTS.items() if part.benchmark]
EXTRA_LINES = {"duplicate", "malformed", "empty_answer", "missing_field", "wrong_type"}
YES_NO = {"yes": True, "no": False}


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def training(root, name):
    """The good and the bad lines of a training file; a good one is a JSON object with all it needs."""
    good, bad = [], []
    for line in lines(root / f"visual_cot/metadata/{name}_cot_train.jsonl"):
        try:
            row = json.loads(line)
        except ValueError:
            bad.append("malformed")
            continue
        if "bboxs" not in row:
            bad.append("missing_field")
        elif not isinstance(row["width"], int):
            bad.append("wrong_type")
        elif not row["answer"]:
            bad.append("empty_answer")
        elif row in good:
            bad.append("duplicate")
        else:
            good.append(row)
    return good, bad


def benchmark(root, name):
    folder = root / "visual_cot/viscot_benchmark"
    det = [json.loads(line) for line in lines(folder / f"benchmark_det/{name}.jsonl")]
    return det, json.loads((folder / f"benchmark/{name}.json").read_text(encoding="utf-8"))


def llava(root):
    return json.loads((root / "llava/llava_v1_5_mix665k.json").read_text(encoding="utf-8"))


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def defect(box, wide, high):
    x0, y0, x1, y1 = box
    if x0 > x1 or y0 > y1:
        return "swapped"
    if x0 == x1 or y0 == y1:
        return "zero_area"
    if x0 >= wide or y0 >= high:
        return "outside"
    if x0 < 0:
        return "negative"
    if x1 > wide:
        return "beyond"
    return "on_border" if x1 == wide else None
