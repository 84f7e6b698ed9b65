"""Takes with `rescale`: resized copies are let in and their boxes resized; nothing else changes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import end_to_end
from helpers import image_files as make
from helpers.command import run
from helpers.template_cases import DOG, GOLDEN, TEXT_ONLY, TWO, annotation, rule, table
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from vpt_data import columns, geometry
from vpt_data.corpus import rescale, shards
from vpt_data.corpus.row_groups import Bucket, text_bytes
from vpt_data.dialogue.render import render
from vpt_data.dialogue.rule import RenderRule
from vpt_data.errors import UsageError
from vpt_data.images.policy import Failure, Picture, check
from vpt_data.images.root import ImageRoot
from vpt_data.images.views import shown
from vpt_data.inspect import row_rules
from vpt_data.inspect.check import check as checked
from vpt_data.recipe import load
from vpt_data.schema import SAMPLE, Reason

# Which files are resized copies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "other", "factor"),
    [
        ((1024, 768), (512, 384), 0.5),
        ((1024, 683), (500, 333), 500 / 1024),
        ((683, 1024), (333, 500), 500 / 1024),
        ((50, 40), (500, 400), 10.0),
        ((100, 100), (30, 30), 0.3),
        ((463, 894), (608, 1168), None),
        ((1024, 768), (768, 1024), None),
        ((100, 100), (30, 31), None),
        ((500, 375), (500, 376), None),
    ],
)
def test_one_factor_for_both_sides_or_none(size: tuple[int, int], other: tuple[int, int], factor: float | None) -> None:
    found = geometry.common_factor([size], [other])[0]
    assert np.isnan(found) if factor is None else found == factor
    data = make.encoded(Image.new("RGB", other), "PNG")
    refused = f"a.png: the file is {other[0]}x{other[1]}, the annotation says {size[0]}x{size[1]}"
    assert check("a.png", data, *size) == Failure(Reason.SIZE_MISMATCH, refused)
    loaded = check("a.png", data, *size, rescale=True)
    if factor is None:
        assert loaded == Failure(Reason.SIZE_MISMATCH, refused)
    else:
        assert isinstance(loaded, Picture)
        assert (loaded.width, loaded.height, loaded.data) == (*other, data)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.floats(0.05, 20))
def test_a_resized_copy_is_recognised(width: int, height: int, factor: float) -> None:
    """Whoever resizes, computes the shorter side from the longer and rounds."""
    longer = max(1, round(max(width, height) * factor))
    shorter = round(min(width, height) * longer / max(width, height))
    assume(shorter > 0)
    copy = (longer, shorter) if width >= height else (shorter, longer)
    assert geometry.common_factor([(width, height)], [copy])[0] == longer / max(width, height)


def test_what_exif_says_comes_first_and_a_copy_is_never_turned() -> None:
    turned = make.jpeg(exif=make.exif(6))
    wide, tall = make.SIZE, make.SIZE[::-1]
    for size in (wide, tall):
        assert check("a", turned, *size, rescale=True) == check("a", turned, *size)
    copy = check("a", turned, 2 * wide[0], 2 * wide[1], rescale=True)
    assert isinstance(copy, Picture)
    assert ((copy.width, copy.height), copy.rewritten) == (wide, True)
    assert isinstance(check("a", turned, 2 * tall[0], 2 * tall[1], rescale=True), Failure)


@pytest.mark.parametrize("bad", [(0, 24), (-64, -48), (64, -48)])
def test_sizes_that_are_none_have_no_factor(bad: tuple[int, int]) -> None:
    data = make.encoded(Image.new("RGB", (32, 24)), "PNG")
    assert check("a", data, *bad, rescale=True) == check("a", data, *bad)


def test_real_copies_are_let_in_where_the_take_says_so(shared: Path) -> None:
    lines = (shared / "data/images.jsonl").read_text(encoding="utf-8").splitlines()
    copies = [entry for entry in map(json.loads, lines) if entry["source"].endswith("_resized_copy")]
    found = {}
    for entry in copies:
        row = next(row for row in entry["rows"] if "w" in row)
        root = ImageRoot((shared / "data" / entry["file"]).parent)
        name = Path(entry["file"]).name
        assert isinstance(root.load(name, row["w"], row["h"]), Failure)
        loaded = root.load(name, row["w"], row["h"], rescale=True)
        found[name] = (loaded.width, loaded.height) if isinstance(loaded, Picture) else loaded.reason
    assert found == {
        "1032122270.jpg": (200, 150),  # of 500x375
        "1129704496.jpg": (200, 133),  # of 500x333
        "123889082.jpg": (200, 150),
        "X00016469670.jpg": Reason.SIZE_MISMATCH,  # 608x1168 of 463x894: two factors
    }


# What becomes of the boxes -------------------------------------------------------------------------------------


def _sizes(samples: pa.Table) -> columns.Ints:
    info = columns.unlist(columns.column(samples, "image_info")).values
    return np.stack([columns.numbers(info.field(name), 0) for name in ("width", "height")], axis=1)


def _resized(samples: pa.Table, sizes: columns.Ints) -> tuple[pa.Table, columns.Ints]:
    """The samples as they go into a shard: `image_info` has the true sizes."""
    done, rows = rescale.rescaled(samples, sizes)
    info = columns.unlist(columns.column(done, "image_info"))
    fields = [pa.array(sizes[:, axis], pa.int32()) for axis in (0, 1)]
    rest = [info.values.field(name) for name in ("sha256", "license", "attribution")]
    return columns.replaced(done, "image_info", info, [*fields, *rest]), rows


RULES = st.builds(
    rule,
    st.sampled_from(["region", "textbox"]),
    k=st.sampled_from([4, 8, 16]),
    boxes=st.sampled_from(["union", "each"]),
    edge=st.sampled_from(["floor", "inside"]),
    crop_margin_cells=st.integers(0, 1),
)


@st.composite
def copies(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], list[list[float]]]:
    """Size of an image, size of a copy, boxes in the image."""
    size = (draw(st.integers(20, 3000)), draw(st.integers(20, 3000)))
    longer = draw(st.integers(20, 4000))
    copy = tuple(max(1, round(side * longer / max(size))) for side in size)
    assume(not np.isnan(geometry.common_factor([size], [copy])[0]))
    corner = st.tuples(st.floats(0, size[0]), st.floats(0, size[1]))
    boxes = draw(st.lists(st.tuples(corner, corner), min_size=1, max_size=3))
    ordered = [
        [*np.minimum(a, b).tolist(), *np.maximum(a, b).tolist()] for a, b in boxes if a[0] != b[0] and a[1] != b[1]
    ]
    assume(ordered)
    return size, (copy[0], copy[1]), ordered


@example(((20, 291), (1, 20), [[0.0, 8.0, 1.0, 9.0]]), rule("textbox", k=4))  # less than a pixel is left of the box
@given(copies(), RULES)
def test_boxes_land_where_the_copy_shows_the_same(
    case: tuple[tuple[int, int], tuple[int, int], list[list[float]]], how: RenderRule
) -> None:
    size, copy, boxes = case
    before = render(table(annotation(size=size, boxes=boxes)), how)
    after, rows = _resized(before, np.array([copy]))
    assert rows.tolist() == ([] if size == copy else [0])
    assert list(row_rules.broken(after, frozenset(), embed=False)) == []
    factor = max(copy) / max(size)
    rounding = np.abs(np.array(copy) - np.array(size) * factor).max()
    old, new = before.to_pylist()[0], after.to_pylist()[0]
    for was, now in zip(old["regions"], new["regions"], strict=True):
        assert np.abs(np.array(now["box"]) - np.array(was["box"]) * factor).max() <= rounding + 1e-6
        assert all(corner <= side for corner, side in zip(now["box"], copy * 2, strict=True))
    for was, now in zip(old["views"], new["views"], strict=True):
        assert {**was, "box": None} == {**now, "box": None}
        if was["box"] is None:
            assert now["box"] is None
        elif was["cells"] is None:
            off = np.abs(np.array(now["box"]) - np.array(was["box"]) * factor)
            assert off[:2].max() <= 1 + rounding and off[2:].max() <= 1 + rounding
    same = [name for name in SAMPLE.names if name not in {"views", "regions", "image_info"}]
    assert before.select(same).equals(after.select(same))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_dialogues_stay_as_they_are(name: str) -> None:
    rows, how, turn = GOLDEN[name]
    before = render(table(*rows), how, None if turn is None else np.array(turn, np.int32))
    after, changed = _resized(before, 2 * _sizes(before))
    assert after["messages"].equals(before["messages"])
    assert len(changed) == (columns.unlist(columns.column(before, "images")).lengths > 0).sum()
    cells = [[view["cells"] for view in row] for row in after["views"].to_pylist()]
    assert cells == [[view["cells"] for view in row] for row in before["views"].to_pylist()]


def test_odd_boxes_are_given_on_as_they_were_given() -> None:
    """Swapped, beyond the image, unknown: `regions` is what the source said, in pixels of the copy."""
    odd = annotation(boxes=[[-10, 20, 600, 30], [40, 30, 20, 10], None, [500, 0, 500, 375]], size=(500, 375))
    odd["regions"].append({"image": 3, "box": [1, 1, 2, 2], "label": "of no image"})
    samples = render(table(DOG, odd, TWO), rule("plain"))
    after, rows = rescale.rescaled(samples, np.array([[500, 375], [250, 188], [500, 375]]))
    assert rows.tolist() == [1]
    boxes = [region["box"] for region in after["regions"][1].as_py()]
    assert boxes == [[-5, 10, 300, 15], [20, 15, 10, 5], None, [250, 0, 250, 187.5], [1, 1, 2, 2]]
    for other in (0, 2):
        assert after.slice(other, 1).equals(samples.slice(other, 1))


def test_legacy_cells_beyond_the_grid_stay_beyond_it() -> None:
    samples = render(table(annotation(boxes=[[0, 0, 500, 300]])), rule(edge="legacy"))
    after, _ = _resized(samples, np.array([[1000, 750]]))
    view = after["views"][0].as_py()[1]
    assert (view["cells"], view["box"]) == ([0, 0, 8, 6], [0, 0, 1125, 656])
    assert list(row_rules.broken(after, frozenset({"demo"}), embed=False)) == []


def test_images_without_a_stated_size_are_no_copies() -> None:
    samples = render(table(annotation(size=(None, None))), rule("plain"))
    after, rows = rescale.rescaled(samples, np.array([[500, 375]]))
    assert after is samples and not len(rows)


@pytest.mark.parametrize("rescale", [frozenset(), frozenset({"demo"})])
def test_rows_without_images_have_nothing_to_resize(tmp_path: Path, rescale: frozenset[str]) -> None:
    samples = render(table(TEXT_ONLY), rule("plain", source_conversations=True, turns="all"))
    bucket = Bucket(samples, np.zeros(1, np.uint64), np.zeros(1, np.uint64), text_bytes(samples), rescale)
    report = shards.write_shard(tmp_path / "s.parquet", bucket, bucket.ranked(), ImageRoot(tmp_path), True)
    assert (report.record.rows, report.outcome.repaired) == (1, {})


# From a raw root to a corpus -----------------------------------------------------------------------------------

TAKE = """
[take.{name}]
source = "table"
template = "{template}"
task = "general"
rescale = {rescale}
files = ["own/{name}.jsonl"]
images = "own/images"
columns = {{ box = "box", width = "w", height = "h" }}
"""


def _recipe(**rescale: bool) -> str:
    takes = [
        TAKE.format(name=name, template="textbox" if name == "text" else "region", rescale=str(said).lower())
        for name, said in rescale.items()
    ]
    return "\n".join(['name = "own"\nshards = 2', *takes])


def _row(image: str, size: tuple[int, int] = (640, 480), number: int = 0) -> dict[str, Any]:
    box = [100, 50, 300, 400]
    return {"image": image, "question": f"What {number}?", "answer": "a", "box": box, "w": size[0], "h": size[1]}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An image of the stated size, a copy of half that size, one of another shape; three takes ask about each."""
    folder = tmp_path / "raw/own/images"
    folder.mkdir(parents=True)
    for name, size in {"same": (640, 480), "half": (320, 240), "wide": (320, 200)}.items():
        Image.effect_noise(size, 80).convert("RGB").save(folder / f"{name}.png")
    # One more row says the size that the copy has: each row decides for itself.
    rows = [*map(_row, ("same.png", "half.png", "wide.png")), _row("half.png", (320, 480), 1)]
    for take in ("open", "text", "strict"):
        said = [*rows, {**_row("half.png", (320, 240), 2), "box": [50, 25, 150, 200]}]
        (tmp_path / f"raw/own/{take}.jsonl").write_text(end_to_end.lines(said), encoding="utf-8")
    return tmp_path / "raw"


@pytest.fixture
def corpus(tmp_path: Path, raw: Path) -> Path:
    recipe = end_to_end.recipe_file(tmp_path, _recipe(open=True, text=True, strict=False))
    return end_to_end.build(recipe, raw, tmp_path / "corpus", mode="embed")


def test_a_take_opts_in(corpus: Path) -> None:
    account = end_to_end.account(corpus)
    for take in ("open", "text"):
        assert (account[take].kept, account[take].repaired) == (3, {"rescaled": 1})
        assert account[take].dropped == {"size_mismatch": 2}
    assert (account["strict"].kept, account["strict"].repaired) == (2, {})
    assert account["strict"].dropped == {"size_mismatch": 3}
    card = (corpus / "README.md").read_text(encoding="utf-8")
    assert "rescaled 1" in card
    for row in end_to_end.rows(corpus):
        (image,), (info,) = row["images"], row["image_info"]
        assert Image.open(io.BytesIO(image["bytes"])).size == (info["width"], info["height"])
        half = image["path"].endswith("half.png")
        assert row["regions"][0]["box"] == ([50, 25, 150, 200] if half else [100, 50, 300, 400])
        crop = ([40, 0, 160, 210] if half else [80, 0, 320, 420]) if row["take"] != "text" else row["regions"][0]["box"]
        assert row["views"][1]["box"] == crop
        assert list(shown(row))[1].size == (crop[2] - crop[0], crop[3] - crop[1])


def test_dialogues_are_those_of_reference_mode_where_nothing_is_rescaled(
    tmp_path: Path, raw: Path, corpus: Path
) -> None:
    recipe = end_to_end.recipe_file(tmp_path, _recipe(open=True, text=True, strict=False))
    reference = end_to_end.build(recipe, raw, tmp_path / "reference")
    off = end_to_end.recipe_file(tmp_path, _recipe(open=False, text=False, strict=False), "off.toml")
    plain = end_to_end.build(off, raw, tmp_path / "plain")
    assert end_to_end.shards(reference) == end_to_end.shards(plain)
    assert not any(part.repaired for part in end_to_end.account(reference).values())
    said = {row["id"]: row["messages"] for row in end_to_end.rows(reference)}
    assert all(row["messages"] == said[row["id"]] for row in end_to_end.rows(corpus))


def test_check_rebuild_and_render_agree(tmp_path: Path, raw: Path, corpus: Path) -> None:
    assert checked(corpus).findings == []
    found = run("check", corpus, "--rebuild", "2", "--raw", raw, "--near-duplicates")
    assert found.exit_code == 0 and "2 of 2 shards made again have the same bytes." in found.stdout, found.output
    out = tmp_path / "free"
    done = run("render", corpus, "--encoder", "dino", "--free-choice", "--out", out)
    assert done.exit_code == 0, done.output
    assert checked(out).findings == []
    assert end_to_end.account(out)["open"].repaired == {"rescaled": 1}
    boxes = {row["id"]: [view["box"] for view in row["views"]] for row in end_to_end.rows(corpus)}
    assert boxes == {row["id"]: [view["box"] for view in row["views"]] for row in end_to_end.rows(out)}


def test_dropped_rows_can_be_retried_beside_copies(tmp_path: Path, raw: Path, corpus: Path) -> None:
    """What was counted for shards that stay is counted again."""
    recipe = tmp_path / "own.toml"
    Image.effect_noise((320, 240), 80).save(raw / "own/images/wide.png")
    result = run("build", "--recipe", recipe, "--raw", raw, "--out", corpus, "--images", "embed", "--workers", "1",
                 "--retry-dropped")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert end_to_end.account(corpus)["open"].repaired == {"rescaled": 2}
    assert end_to_end.account(corpus)["strict"].repaired == {}


@pytest.mark.parametrize("said", [True, False])
def test_rows_of_real_copies(shared: Path, tmp_path: Path, said: bool) -> None:
    lines = (shared / "data/images.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[str, dict[str, Any]] = {}
    folder = tmp_path / "raw/own/images"
    for entry in map(json.loads, lines):
        if entry["source"].endswith("_resized_copy"):
            row = next(row for row in entry["rows"] if "w" in row)
            rows[row["q"]] = {"image": Path(entry["file"]).name, "question": row["q"], "answer": "a",
                              "box": row["bbox"], "w": row["w"], "h": row["h"]}  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(entry["file"]).name).write_bytes((shared / "data" / entry["file"]).read_bytes())
    end_to_end.own_root(tmp_path / "raw", rows.values())
    recipe = end_to_end.recipe_file(tmp_path, _recipe(rows=said))
    corpus = end_to_end.build(recipe, tmp_path / "raw", tmp_path / "corpus", mode="embed")
    assert [drop["reason"] for drop in end_to_end.drops(corpus)] == ["size_mismatch"] * (1 if said else 4)
    if not said:
        return
    part = end_to_end.account(corpus)["rows"]
    assert (part.kept, part.repaired) == (3, {"rescaled": 3})
    for row in end_to_end.rows(corpus):
        box = np.array(rows[row["question"]]["box"]) * 0.4
        assert np.abs(np.array(row["regions"][0]["box"]) - box).max() < 1
        x0, y0, x1, y1 = row["views"][1]["box"]
        assert x0 <= box[0] and y0 <= box[1] and box[2] <= x1 + 1 and box[3] <= y1 + 1


def test_own_data_has_to_say_how_large_its_images_were(tmp_path: Path) -> None:
    text = _recipe(open=True).replace(
        'columns = { box = "box", width = "w", height = "h" }', 'columns = { box = "box" }'
    )
    with pytest.raises(UsageError) as caught:
        load(str(end_to_end.recipe_file(tmp_path, text)))
    said = "take open: rescale goes by the size that the boxes were drawn on; set columns.width and columns.height."
    assert str(caught.value) == f"Recipe {tmp_path}/own.toml, {said}"
