"""`vpt-data depth`: images and maps joined by name, every one of them accounted for, the same files each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vpt_data.cli import depth as command
from vpt_data.cli.main import main
from vpt_data.depth import maps
from vpt_data.depth.points import Point, marked
from vpt_data.depth.prepare import Settings, prepare
from vpt_data.depth.tokenizer import Pool
from vpt_data.errors import RawError, UsageError

SHARED = Path(__file__).parents[3] / "shared/data/aurora"
TO_LIST = {"maps": "depth_maps", "points": "depth_points", "dropped": "depth_dropped"}


def relief(size: tuple[int, int] = (80, 60)) -> np.ndarray:
    wide, high = size
    return np.tile(np.linspace(0, 255, high)[:, None], (1, wide)).astype(np.uint8)


def root(folder: Path, names: str = "abc", size: tuple[int, int] = (80, 60)) -> Path:
    for name in names:
        for place in ("ade20k/images/training", "ade20k/depth"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "green").save(folder / f"ade20k/images/training/{name}.jpg")
        Image.fromarray(relief(size)).save(folder / f"ade20k/depth/{name}_depth.png")
    return folder


def read(folder: Path, what: str) -> list[dict[str, Any]]:
    lines = (folder / f"aurora/{TO_LIST[what]}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_codes_points_and_pictures(tmp_path: Path) -> None:
    raw = root(tmp_path)
    made = prepare(Settings(root=raw, points=2, depth_model="drawn"))
    assert (made.maps, made.points, made.dropped) == (3, 2, {})
    rows = read(raw, "maps")
    assert [row["image"] for row in rows] == [f"ade20k/images/training/{name}.jpg" for name in "abc"]
    assert all(row["codes"] == Pool().encode([relief()])[0].tolist() for row in rows)
    assert {row["tokenizer_id"] for row in rows} == {str(Pool().identity("drawn"))}
    for row in read(raw, "points"):
        points = [Point(**point) for point in row["points"]]
        assert 2 <= len(points) <= 5 and all(relief((336, 336))[point.y, point.x] for point in points)
        with Image.open(raw / row["image"]) as image, Image.open(raw / row["marked"]) as picture:
            assert (np.asarray(picture) == np.asarray(marked(image, points))).all()


def test_the_same_files_give_the_same_bytes_and_more_images_change_no_points(tmp_path: Path) -> None:
    small, large = (root(tmp_path / name, letters) for name, letters in (("small", "abc"), ("large", "cbad")))
    for raw in (small, large):
        prepare(Settings(root=raw, points=9))
    once = (small / "aurora/depth_points.jsonl").read_bytes()
    prepare(Settings(root=small, points=9))
    assert (small / "aurora/depth_points.jsonl").read_bytes() == once
    assert [row for row in read(large, "points") if "/d.jpg" not in row["image"]] == read(small, "points")


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    raw = root(tmp_path, "abcdefghi")
    depth, images = raw / "ade20k/depth", raw / "ade20k/images/training"
    Image.fromarray(np.full((60, 80), 7, np.uint8)).save(depth / "a_depth.png")
    (depth / "b_depth.png").unlink()
    (images / "c.jpg").unlink()
    Image.fromarray(relief((60, 80))).save(depth / "d_depth.png")
    np.save(depth / "e.npy", relief())
    (images / "f.jpg").write_bytes(b"no picture")
    Image.fromarray(relief() // 64).save(depth / "g_depth.png")
    cut = (images / "h.jpg").read_bytes()
    (images / "h.jpg").write_bytes(cut[: len(cut) // 2])
    made = prepare(Settings(root=raw, points=9))
    assert (made.maps, made.points) == (3, 1)
    found = {(drop["file"].rpartition("/")[2], drop["reason"]): drop["detail"] for drop in read(raw, "dropped")}
    assert "all pixels have the same depth" in found["a.jpg", "bad_image"]
    assert found["b.jpg", "malformed"].endswith("1 images and 0 depth maps have this name; expected one of each")
    assert "0 images and 1 depth maps" in found["c_depth.png", "missing_image"]
    assert "the map is 60x80, its image 80x60, which is another shape" in found["d.jpg", "size_mismatch"]
    assert "1 images and 2 depth maps" in found["e.jpg", "malformed"]
    assert ("f.jpg", "bad_image") in found and ("h.jpg", "bad_image") in found
    assert "no points were found that differ enough" in found["g.jpg", "not_selected"]
    assert sum(made.dropped.values()) == len(found) == 8


def test_a_published_selection_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = root(tmp_path)
    chosen = {"a.jpg": {"B": {"coordinate": [73, 188], "depth": 15.0}, "A": {"coordinate": [191, 77], "depth": 38.0}}}
    (tmp_path / "chosen.json").write_text(json.dumps({**chosen, "z.jpg": chosen["a.jpg"], "b/a.jpg": chosen["a.jpg"]}))
    made = prepare(Settings(root=raw, selection=tmp_path / "chosen.json"))
    [row] = read(raw, "points")
    assert row["points"] == [
        {"label": "B", "x": 73, "y": 188, "depth": 15},
        {"label": "A", "x": 191, "y": 77, "depth": 38},
    ]
    assert made.dropped == {"duplicate": 1, "missing_image": 1}


@pytest.mark.skipif(not SHARED.exists(), reason="the published selection is not here (../shared/data/aurora)")
def test_the_published_file_is_a_selection(tmp_path: Path) -> None:
    file = SHARED / "train_selection/point_label_mappings.json"
    given = json.loads(file.read_text())
    raw = root(tmp_path, [Path(name).stem for name in list(given)[:3]])  # type: ignore[arg-type]
    made = prepare(Settings(root=raw, selection=file))
    assert (made.points, made.dropped) == (3, {"missing_image": 497})
    for row in read(raw, "points"):
        published = given[Path(row["image"]).name]
        assert {p["label"]: ([p["x"], p["y"]], float(p["depth"])) for p in row["points"]} == {
            label: (point["coordinate"], point["depth"]) for label, point in published.items()
        }


@pytest.mark.parametrize("text", ["[]", "{", '{"a.jpg": {"A": {"coordinate": [1, 336], "depth": 1}}}'])
def test_a_file_that_is_no_selection(tmp_path: Path, text: str) -> None:
    (tmp_path / "chosen.json").write_text(text)
    with pytest.raises(
        RawError, match=r"chosen.json: not a selection of points \(.*\); expected image: letter: coordin"
    ):
        prepare(Settings(root=root(tmp_path), selection=tmp_path / "chosen.json"))


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    raw = root(tmp_path)
    with pytest.raises(UsageError, match=r"^\.\./a: this leads out of the raw root; give a folder relative to it\.$"):
        prepare(Settings(root=raw, maps="../a"))
    for folder in ("ade20k/images/", "."):
        with pytest.raises(UsageError, match=r": write the folder without `\.` and without `/` at its end\.$"):
            prepare(Settings(root=raw, images=folder))
    with pytest.raises(
        RawError, match=r"^nowhere: there is no such folder under .*; name it relative to the raw root\.$"
    ):
        prepare(Settings(root=raw, images="nowhere"))
    (raw / "empty").mkdir()
    with pytest.raises(
        RawError, match=r"^ade20k/images: none of 3 images has a depth map of its name among 0 files in em"
    ):
        prepare(Settings(root=raw, maps="empty"))


def test_the_command(tmp_path: Path) -> None:
    arguments = ["depth", "--raw", str(root(tmp_path)), "--points", "1", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "maps": 3, "points": 1, "dropped": {}, "files": [f"aurora/{name}.jsonl" for name in TO_LIST.values()],
    }  # fmt: skip
    text = CliRunner().invoke(main, arguments[:-1]).stdout
    assert "images with points       1" in text and "Made: aurora/depth_maps.jsonl" in text
    assert command._CONVENTIONS == maps.CONVENTIONS
