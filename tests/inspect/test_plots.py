"""Plots: the same bytes each time, harmless whatever a take is called, and with the numbers of the statistics."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import msgspec
import pytest
from helpers import small_corpora
from helpers.plotted import HOSTILE, renamed
from PIL import Image

from vpt_data.inspect import figures, stats
from vpt_data.inspect.figures import Plot
from vpt_data.inspect.plots import MOST_TAKES, plots

PLOTS_ARE_DRAWN = True
NAMES = ["rows", "box_area", "iou", "heat", "answers", "image_tokens", "row_groups"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def found(corpus: Path) -> stats.Statistics:
    return stats.stats(corpus)


@pytest.fixture(scope="module")
def drawn(found: stats.Statistics) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(found)}


def test_each_plot_has_its_numbers(drawn: dict[str, Plot], found: stats.Statistics) -> None:
    assert list(drawn) == NAMES
    for plot in drawn.values():
        assert plot.table.rows and all(len(row) == len(plot.table.header) for row in plot.table.rows)
        assert plot.note.endswith(".")
    assert [row for row in drawn["rows"].table.rows if row[0] == "gqa"] == [["gqa", "viscot", "gqa", "6"]]
    boxes = found.takes["gqa"].boxes
    assert boxes
    fits = [f"{boxes.grids[k].mean_iou:.3f}" for k in ("4", "8", "16", "32")]
    assert ["gqa", f"{boxes.mean_iou_of_cells:.3f}", *fits] in drawn["iou"].table.rows
    assert fits[1] == f"{boxes.mean_iou_of_cells:.3f}"


def test_the_same_bytes_each_time(corpus: Path, drawn: dict[str, Plot]) -> None:
    code = (
        "import hashlib, sys; from pathlib import Path; from vpt_data.inspect import plots, stats\n"
        "for plot in plots.plots(stats.stats(Path(sys.argv[1]))):\n"
        "    print(hashlib.sha256(plot.svg().encode() + plot.png()).hexdigest())"
    )
    here = [hashlib.sha256(plot.svg().encode() + plot.png()).hexdigest() for plot in drawn.values()]
    first = drawn["rows"]
    assert here[0] == hashlib.sha256(first.svg().encode() + first.png()).hexdigest()
    ran = subprocess.run([sys.executable, "-c", code, str(corpus)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == here


def test_settings_of_a_user_change_nothing_and_stay(drawn: dict[str, Plot]) -> None:
    before = drawn["rows"].svg(), drawn["rows"].png()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert (drawn["rows"].svg(), drawn["rows"].png()) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_threads_draw_one_after_the_other(drawn: dict[str, Plot]) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(drawn["iou"].svg())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == {drawn["iou"].svg()} and len(made) == 4


def test_an_svg_needs_nothing_of_its_page(drawn: dict[str, Plot]) -> None:
    seen: set[str] = set()
    for plot in drawn.values():
        text = plot.svg()
        root = ElementTree.fromstring(text)
        assert root.get("aria-label") == plot.title
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
            "svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "image", "pattern",
        }  # fmt: skip
        ids = {value for element in root.iter() if (value := element.get("id"))}
        assert not any(element.get("style") for element in root.iter())
        referred = {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)}
        assert referred == ids and not ids & seen
        assert not re.findall(r'href="(?!#|data:image/png;base64,)', text)
        assert figures.INK not in text and "currentColor" in text
        seen |= ids


def test_text_stays_text(drawn: dict[str, Plot]) -> None:
    words = {"".join(element.itertext()) for element in ElementTree.fromstring(drawn["rows"].svg()).iter()}
    assert {"gqa", "6 (13.3%)", "viscot", "rows"} <= words


def test_png(drawn: dict[str, Plot]) -> None:
    for plot in drawn.values():
        with Image.open(BytesIO(plot.png())) as image:
            assert image.width == round(figures.WIDTH * 200) and image.convert("RGB").getpixel((0, 0)) == (255,) * 3
            assert "Software" not in image.info


def test_hostile_names_are_text(found: stats.Statistics) -> None:
    for plot in plots(renamed(found, "gqa", HOSTILE)):
        text = plot.svg()
        assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
        ElementTree.fromstring(text)
        assert plot.png().startswith(b"\x89PNG")
        if plot.name in {"rows", "box_area", "iou", "answers"}:
            assert "&lt;/svg&gt;&lt;/style&gt;&lt;script" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gqa", "gqa"),
        ("a" * 28, "a" * 28),
        ("a" * 31, "a" * 29 + "…"),
        ("a\nb\x7f\u202ec", "a b\ufffd\ufffdc"),
        ("你好", "你好"),
    ],
)
def test_labels(name: str, shown: str) -> None:
    assert figures.label(name) == shown


def test_many_takes(found: stats.Statistics) -> None:
    take, [part, *_] = found.takes["gqa"], found.sources
    names = [f"take{number}" for number in range(MOST_TAKES + 4)]
    takes = {name: msgspec.structs.replace(take, rows=number + 1) for number, name in enumerate(names)}
    parts = [msgspec.structs.replace(part, take=name, rows=number + 1) for number, name in enumerate(names)]
    for plot in plots(msgspec.structs.replace(found, takes=takes, sources=parts)):
        if plot.name == "row_groups":
            continue
        assert {row[0] for row in plot.table.rows} >= set(names)
        words = {"".join(element.itertext()) for element in ElementTree.fromstring(plot.svg()).iter()}
        assert words & set(names) == set(names[-MOST_TAKES:])
        assert plot.note.endswith(f" Drawn are the {MOST_TAKES} takes with the most rows; the table has all 20.")


def test_a_corpus_without_boxes_or_rows(found: stats.Statistics) -> None:
    plain = {name: msgspec.structs.replace(take, boxes=None) for name, take in found.takes.items()}
    kept = plots(msgspec.structs.replace(found, takes=plain, heat={}))
    assert [plot.name for plot in kept] == ["rows", "answers", "image_tokens", "row_groups"]
    assert plots(msgspec.structs.replace(found, rows=0, takes={}, heat={}, sources=[], row_groups=[])) == []


def test_the_font_of_older_matplotlib_becomes_attributes() -> None:
    assert figures._declarations("font: 9px 'DejaVu Sans'; fill: none") == [
        ("font-size", "9px"), ("font-family", "'DejaVu Sans'"), ("fill", "none"),
    ]  # fmt: skip
