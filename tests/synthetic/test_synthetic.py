"""The sample raw root: the same bytes for a seed, Visual-CoT as its owners write it, dirt as documented."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from helpers.sample_files import (
    BENCHMARKS,
    EXTRA_LINES,
    FOLDERS,
    ROWS,
    YES_NO,
    benchmark,
    defect,
    lines,
    llava,
    training,
    tree,
)
from PIL import Image

import vpt_data.synthetic
from vpt_data.errors import OutputError
from vpt_data.synthetic import SAMPLE_VERSION, write_sample
from vpt_data.synthetic.formats import benchmark_record, cot_row, page_name
from vpt_data.synthetic.pools import SHARES, held_quota, quota
from vpt_data.synthetic.questions import Ask
from vpt_data.synthetic.viscot import PARTS, VSR_SHARED_IMAGES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "raw"
    seen = []
    counts = write_sample(out, ROWS, 0, progress=lambda done, total: seen.append((done, total)))
    return out, counts, seen


@pytest.fixture(scope="module")
def root(made):
    return made[0]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    write_sample(tmp_path / "a", 60, 7)
    write_sample(tmp_path / "b", 60, 7)
    write_sample(tmp_path / "c", 60, 8)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    annotations = {path for path in a if not path.endswith((".jpg", ".png", ".jpeg"))}
    same = {path for path in annotations if a[path] == c[path]}
    lists = ("attributes/attributes", "classes", "image_class_labels", "train_test_split")
    assert same <= {f"cub/CUB_200_2011/{name}.txt" for name in lists}
    assert not (set(a.values()) & set(c.values())) - {a[path] for path in same}


def test_counts_are_the_records_of_each_file(made):
    root, counts, _ = made
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix in {".json", ".jsonl", ".txt", ".csv"}
    }
    assert found == set(counts) | {"sample.json"}
    for path, n in counts.items():
        if path.endswith((".jsonl", ".txt")) or path.startswith("pope/"):
            assert len(lines(root / path)) == n, path
        elif "benchmark" in path or "llava" in path:
            assert len(json.loads((root / path).read_text())) == n, path
    assert counts["own/receipts.csv"] == len(lines(root / "own/receipts.csv")) - 1
    marker = json.loads((root / "sample.json").read_text())
    assert marker == {"sample_version": SAMPLE_VERSION, "rows": ROWS, "seed": 0, "counts": counts}


def test_progress_counts_every_image_once(made):
    root, _, seen = made
    images = sum(
        path.suffix in {".jpg", ".jpeg", ".png"} for path in root.rglob("*") if "_marked" not in path.parts[-2]
    )
    assert seen == [(i + 1, images) for i in range(images)]


def test_the_parts_have_the_proportions_of_the_mix(root):
    assert sum(SHARES.values()) == 828_763
    assert {name: len(training(root, name)[0]) for name in PARTS} == {name: quota(name, ROWS) for name in PARTS}
    assert sum(quota(name, 100_000) for name in SHARES) == pytest.approx(100_000, abs=len(SHARES))
    assert quota("dude", 10**6) == 12


def test_a_finished_sample_is_left_alone_and_an_older_one_replaced(tmp_path):
    out = tmp_path / "raw"
    counts = write_sample(out, 20, 0)
    before = (out / "sample.json").stat().st_mtime_ns
    assert write_sample(out, 20, 0) == counts
    assert (out / "sample.json").stat().st_mtime_ns == before
    write_sample(out, 20, 1)
    assert json.loads((out / "sample.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_an_empty_folder_is_filled_and_a_strange_one_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert write_sample(tmp_path / "empty", 20)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(
        OutputError, match=r"mine holds something that is not a sample raw root; choose a new or an empty"
    ):
        write_sample(mine, 20)
    with pytest.raises(OutputError, match="not a sample raw root"):
        write_sample(mine / "thesis.txt", 20)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(OutputError, match="A sample of 0 rows was asked for; ask for at least one"):
        write_sample(tmp_path / "none", 0)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def full(done, total):
        if done == 5:
            raise OSError(28, "No space left on device")

    with pytest.raises(
        OutputError, match=r"Writing the sample to .*raw failed \(.*No space left.*\); nothing is left of it"
    ):
        write_sample(tmp_path / "raw", 20, progress=full)
    assert list(tmp_path.iterdir()) == []


def test_file_names_never_repeat():
    assert len({page_name(3, n) for n in range(20_000)} | {page_name(3, 500_000 + n) for n in range(5000)}) == 25_000


@pytest.mark.parametrize("name", PARTS)
def test_training_dirt_is_as_documented(root, name):
    good, bad = training(root, name)
    part = PARTS[name]
    assert sorted(bad) == sorted(d for d in part.dirt if d in EXTRA_LINES)
    bent = [defect(box, row["width"], row["height"]) for row in good for box in row["bboxs"][:1]]
    wanted = Counter(d for d in part.dirt if d not in EXTRA_LINES)
    if name == "cub":  # two questions about each bird
        wanted = Counter(dict.fromkeys(wanted, 2))
    assert Counter(d for d in bent if d) == wanted
    assert {row["dataset"] for row in good} == {part.label}
    kind = int if part.numbers == "int" else float
    assert {type(v) for row in good for box in row["bboxs"] for v in box} == {kind}


@pytest.mark.parametrize("name", PARTS)
def test_named_images_exist_and_have_the_size_the_row_says(root, name):
    for row in training(root, name)[0]:
        with Image.open(root / FOLDERS[name] / row["image"]) as image:
            assert image.size == (row["width"], row["height"])
    if name in BENCHMARKS:
        for row in benchmark(root, name)[0]:
            assert row["img_path"].split("/")[:2] == ["cot", "textvqa" if name == "textcap" else name]
            with Image.open(root / FOLDERS[name] / row["img_path"].split("/", 2)[2]) as image:
                assert image.size == (row["width"], row["height"])


def test_rows_with_several_boxes(root):
    docvqa = training(root, "docvqa")[0]
    assert all(len(row["bboxs"]) == len(row["possible_answers"]) for row in docvqa)
    assert any(len(row["bboxs"]) == 2 and row["bboxs"][0] == row["bboxs"][1] for row in docvqa)
    gqa = training(root, "gqa")[0]
    assert any(len({tuple(box) for box in row["bboxs"]}) > 2 for row in gqa)
    assert all(row["full_answer"] and row["reasoning"] for row in gqa)
    counted = [row for row in gqa if row["question"].startswith("How many")]
    assert counted and all(int(row["answer"]) == len(row["bboxs"]) for row in counted)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_pairs_are_aligned(root, name):
    det, records = benchmark(root, name)
    assert len(det) == len(records) == held_quota(name, ROWS)
    for row, record in zip(det, records, strict=True):
        assert record["image"][0] == row["img_path"]
        assert record["conversations"][0]["value"].startswith(f"<image>\n{row['expression']} Please")
        assert record["conversations"][3]["value"]
        assert record["dataset"] == PARTS[name].label
    bent = [defect(row["bbox"], row["width"], row["height"]) for row in det]
    own = {"on_border", "beyond"} if name == "cub" else set()
    assert [d for d in bent if d and d not in own] == list(PARTS[name].benchmark_dirt)


@pytest.mark.parametrize("name", ["docvqa", "gqa", "cub"])
def test_benchmark_records_are_what_the_owners_wrote(shared, name):
    folder = shared / "data/raw/visual_cot/viscot_benchmark"
    with gzip.open(folder / f"benchmark_det/{name}.jsonl.gz", "rt") as file:
        det = [json.loads(line) for line in file]
    with gzip.open(folder / f"benchmark/{name}.json.gz", "rt") as file:
        records = json.load(file)
    ours = [
        benchmark_record(row, record["dataset"], record["conversations"][3]["value"])
        for row, record in zip(det, records, strict=True)
    ]
    assert ours == records
    assert [list(record) for record in ours] == [list(record) for record in records]


def test_keys_and_their_order_are_the_owners(shared, root):
    def first(path, opener=gzip.open):
        with opener(shared / "data/raw" / path, "rt") as file:
            return list(json.loads(file.readline()))

    cot = "visual_cot/viscot_dataset/"
    assert list(training(root, "vsr")[0][0]) == first(f"{cot}vsr_cot_train.jsonl.gz")
    assert list(training(root, "cub")[0][0]) == first(f"{cot}cub_cot_train.jsonl.gz")
    det = "visual_cot/viscot_benchmark/benchmark_det/gqa.jsonl"
    assert list(json.loads(lines(root / det)[0])) == first(f"{det}.gz")
    assert list(llava(root)[0]) == first("llava/llava_v1_5_mix665k.jsonl.gz")
    pope = "pope/coco/coco_pope_popular.json"
    assert list(json.loads(lines(root / pope)[0])) == first(f"{pope}.gz")
    for split in ("random", "zeroshot"):
        ours = json.loads(lines(root / f"vsr/splits/{split}/train.jsonl")[0])
        assert set(ours) == set(first(f"vsr/splits/{split}/dev.jsonl.gz"))
    with gzip.open(shared / "data/raw/coco/annotations/instances_train2017.json.gz", "rt") as file:
        real = json.load(file)
    ours = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    assert list(ours) == list(real)
    assert set(ours["annotations"][0]) == set(real["annotations"][0])
    assert set(ours["images"][0]) <= set(real["images"][0])
    names = {category["id"]: category["name"] for category in real["categories"]}
    assert all(names[category["id"]] == category["name"] for category in ours["categories"])


def test_held_out_rows_are_not_repeats(root):
    seen_pairs, seen_bytes = set(), set()
    for name in PARTS:
        for row in training(root, name)[0]:
            seen_pairs.add((f"{FOLDERS[name]}/{row['image']}", row["question"]))
    for record in llava(root):
        if "image" in record and record["conversations"]:
            path = record["image"] if "/" in record["image"] else ""
            seen_pairs.add((path, record["conversations"][0]["value"].split("\n")[1]))
    seen_images = {path for path, _ in seen_pairs}
    seen_bytes = {(root / path).read_bytes() for path in seen_images}
    shared_with_training = set()
    for name in BENCHMARKS:
        for row in benchmark(root, name)[0]:
            path = f"{FOLDERS[name]}/{row['img_path'].split('/', 2)[2]}"
            assert (path, row["expression"]) not in seen_pairs
            if path in seen_images:
                shared_with_training.add((name, path))
            else:
                assert (root / path).read_bytes() not in seen_bytes
    assert {name for name, _ in shared_with_training} == {"vsr"}
    assert len(shared_with_training) == VSR_SHARED_IMAGES
    for line in lines(root / "pope/coco/coco_pope_random.json"):
        number = json.loads(line)["image"][-16:-4]
        assert not (root / f"coco/train2017/{number}.jpg").exists()


def test_answers_are_balanced_and_varied(root):
    for name in ("vsr", "gqa", "openimages", "cub"):
        said = [YES_NO[row["answer"].lower()] for row in training(root, name)[0] if row["answer"].lower() in YES_NO]
        assert len(said) >= 4
        assert abs(sum(said) - len(said) / 2) <= max(1, len(said) / 8), name
    for name in ("docvqa", "textvqa", "textcap"):
        answers = [row["answer"] for row in training(root, name)[0]]
        assert len(set(answers)) > 0.9 * len(answers), name
    free = [row["answer"] for row in training(root, "gqa")[0] if row["answer"] not in YES_NO]
    assert len(set(free)) >= 12
    assert Counter(free).most_common(1)[0][1] < 0.25 * len(free)


def test_a_row_can_be_made_by_hand():
    """The worked example of the format: one question about a DocVQA page."""
    ask = Ask("what is the name?", "P. Carter", ((429, 511, 666, 578),), "P. Carter")
    assert json.dumps(cot_row(ask, "xnbl0037_1.png", (1695, 2025), "docvqa", "int")) == (
        '{"question": "what is the name?", "answer": "P. Carter", "possible_answers": '
        '["P. Carter", "p. carter"], "image": "xnbl0037_1.png", "width": 1695, "height": 2025, '
        '"bboxs": [[429, 511, 666, 578], [429, 511, 666, 578]], "dataset": "docvqa", "split": "train"}'
    )


def test_nothing_in_the_sample_reads_with_the_readers_it_tests():
    # `depth` is what makes the files of its source from images and maps, in a sample as anywhere.
    forbidden = re.compile(r"^(from|import) vpt_data\.(?!synthetic|errors|depth)", re.M)
    for path in Path(vpt_data.synthetic.__file__).parent.glob("*.py"):
        assert not forbidden.search(path.read_text(encoding="utf-8")), path
