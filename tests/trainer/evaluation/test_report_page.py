"""report.html: the tables of the report, plots of them, rows that were asked; and the same report as text."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from answer_files import GQA, POPE, evaluate, gold, looks_of, written
from helpers import golden_text, undrawn
from helpers.browsing import Elements
from helpers.plotted import HOSTILE

from trainer.evaluation import folder, items, report
from trainer.evaluation.page.examples import examples
from trainer.evaluation.page.plots import Line, _figure
from trainer.evaluation.page.render import render
from trainer.evaluation.results import Compared, Intervened, Results, Value
from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view import page

PAGES_ARE_WHOLE = True


@pytest.fixture(scope="module")
def out(corpus: Path, asked: items.Items, sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with some of everything: a third of the answers is that of another row, some looks are wrong."""
    place = tmp_path_factory.mktemp("report")
    draw, rows = random.Random(0), gold(asked)
    answers = [row["turns"][-1] for row in rows]
    for row, looks in zip(rows, looks_of(asked), strict=True):
        said = row["turns"][-1] if draw.random() < 0.7 else draw.choice(answers)
        moved = [look.replace("<|x_2|>", "<|x_5|>") if draw.random() < 0.5 else look for look in looks]
        row["turns"] = [*moved, said]
    rows[0] |= {"turns": [f"{HOSTILE} <|detection_action_start|>", HOSTILE]}
    rows[1] = {"id": rows[1]["id"], "ended": "fault", "fault": f"missing_image: {HOSTILE}"}
    for name, given in (("other", gold(asked)), ("out", rows)):
        (place / name).mkdir()
        options = () if name == "other" else (
            "--against", place / "other" / "out", "--judge", "offline", "--published", "vpt:2b-dino-512",
            "--about", f"model={HOSTILE}", "--raw", sample_root,
        )  # fmt: skip
        file, folder = written(place / name, given), place / name / "out"
        done = evaluate("--predictions", file, "--data", corpus, "--out", folder, "--resamples", "200", *options)
        assert done.exit_code == 0, done.output
    return place / "out" / "out"


@pytest.fixture(scope="module")
def found(out: Path) -> Results:
    return msgspec.json.decode((out / "results.json").read_bytes(), type=Results)


@pytest.fixture(scope="module")
def html(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_every_table_is_on_the_page(found: Results, html: str) -> None:
    sections = list(report.sections(found))
    assert {section.name for section in sections} == {
        "answers", "judge", "published", "yes_no", "regions", "sizes", "looks", "invalid", "faults", "runs", "against",
    }  # fmt: skip
    ids = [given["id"] for tag, given in Elements(html).found if tag == "section"]
    assert ids == [section.name for section in sections] + ["examples", "facts"]
    rows = sum(tag == "tr" for tag, _ in Elements(html).found)
    assert rows == sum(len(section.rows) + 1 for section in sections) + len(report.facts(found))
    plots = [str(given["aria-label"]) for tag, given in Elements(html).found if tag == "svg"]
    assert plots == ["Scores by split", "Beside 2B-VPT-DINO", "IoU by size of the box", "Differences from other runs"]


def test_the_page_needs_nothing_else(html: str) -> None:
    page_of = Elements(html)
    tags = [tag for tag, _ in page_of.found]
    assert tags.count("style") == 1 and "script" not in tags
    links = [value for _, given in page_of.found for key, value in given.items() if key in {"href", "src"}]
    assert all(str(link).startswith(("#", "data:")) for link in links)
    assert page_of.policy["default-src"] == page_of.policy["script-src"] == "'none'"
    assert page_of.policy["style-src"] in page.policy(page_of.texts["style"])
    assert not [given for _, given in page_of.found if "style" in given or any(key.startswith("on") for key in given)]
    assert len(html) < 3_000_000


def test_forty_rows_with_their_pictures(html: str) -> None:
    page_of = Elements(html)
    kinds = [str(given["class"]) for tag, given in page_of.found if tag == "li"]
    assert kinds == ["example good"] * 20 + ["example bad"] * 20
    pictures = [given for tag, given in page_of.found if tag == "img"]
    assert len(pictures) == 40 and all(str(given["src"]).startswith("data:image/webp;base64,") for given in pictures)
    assert "has no pixels" not in html


def test_what_a_model_says_is_text(html: str) -> None:
    harmless = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    assert "<script" not in html and "\u202e" not in html and "\x1b" not in html
    assert f"model={HOSTILE}" not in html
    assert harmless in "".join(Elements(html).texts.values())


def test_the_same_results_give_the_same_page(
    corpus: Path, asked: items.Items, sample_root: Path, out: Path, found: Results, html: str
) -> None:
    """Whatever the order of the records, the same rows are shown."""
    records = folder.read_records(out)
    backwards = records.take(list(range(records.num_rows))[::-1])
    some = [examples(open_corpus(str(corpus)), asked, given, sample_root) for given in (records, backwards)]
    assert sorted(some[0], key=lambda one: one.id) == sorted(some[1], key=lambda one: one.id)
    assert render(found, "Answers of answers", some[0], True) == html


def test_without_pixels_the_page_says_so(
    corpus: Path, asked: items.Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undrawn.undraw_plots(monkeypatch.setattr)
    rows = [row for row in gold(asked) if row["id"].startswith(GQA)]
    done = evaluate("--predictions", written(tmp_path, rows), "--data", corpus, "--split", GQA, "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "The corpus has no pixels: boxes and cells are drawn on a pattern." in text
    assert "There are none." in text, "no row has failed"
    assert text.count("<img") == len(rows) < 20


@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser(browser: Any, out: Path, width: int) -> None:
    """Nothing is wider than the window, nothing is asked for, nothing is complained about, and pictures are shown."""
    said: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark")
    tab = context.new_page()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    tab.goto((out / "report.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert min(tab.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth)")) > 100
    inks = set(tab.eval_on_selector_all("svg text", "all => all.map(one => getComputedStyle(one).fill)"))
    assert inks == {"rgb(230, 235, 241)"}
    context.close()
    assert not said


def value(mean: float) -> Value:
    return Value(mean, mean - 0.1, mean + 0.1, 40, 20)


def compared(difference: float, p: float) -> Compared:
    return Compared(value(0.5), value(0.7), difference, difference - 0.1, difference + 0.1, p, p, 40, 20)


def test_interventions_are_a_table_and_a_picture(found: Results) -> None:
    """An arm that changed no row has no difference, and is not drawn."""
    same, worse = compared(0.02, 0.6), compared(-0.4, 0.01)
    arms = {
        "crop=oracle": {GQA: Intervened(40, 20, 38, value(0.8), same, same, value(0.1))},
        "crop=random": {GQA: Intervened(40, 20, 40, value(0.3), worse, worse, value(0.6))},
        "control=swap": {GQA: Intervened(40, 20, 0, value(0.7))},
    }  # fmt: skip
    results = msgspec.structs.replace(found, splits={GQA: found.splits[GQA]}, interventions=arms)
    [section] = [section for section in report.sections(results) if section.name == "interventions"]
    assert [row[1:4] + row[6:7] + row[9:] for row in section.rows if row[1] != "its own"] == [
        ["crop=oracle", "40", "38", "+0.020", "0.6000", "no difference found", "+0.020", "0.100"],
        ["crop=random", "40", "40", "-0.400", "0.0100", "lower", "-0.400", "0.600"],
        [
            "control=swap",
            str(found.splits[GQA].rows),
            "0",
            "-",
            "-",
            "changed no row, so there is nothing to compare",
            "-",
            "-",
        ],
    ]
    text = render(results, "Answers", [], True)
    scores, differences, _ = text[text.index('id="interventions"') :].split("</svg>", 2)
    assert all(f">{name}</text>" in scores for name in (GQA, "its own", "crop=oracle", "crop=random", "0.800", "0.300"))
    assert all(f">{name}</text>" in differences for name in (GQA, "crop=oracle", "crop=random", "+0.020", "-0.400"))
    assert "control=swap" not in scores + differences and "its own" not in differences


def test_figures_beyond_1_are_inside_their_plot(found: Results) -> None:
    """A judge that is read as the published program does may give 10."""
    lines = [Line("of captions", Value(8.0, 7.0, 9.5, 40, 20)), Line("others", value(0.5))]
    assert _figure(lines, "score", zero=False).axes[0].get_xlim() == (0.0, 9.5)
    assert _figure(lines[1:], "score", zero=False).axes[0].get_xlim() == (0.0, 1.0)
    low, high = _figure([Line("a", compared(-0.4, 0.01))], "difference", zero=True).axes[0].get_xlim()
    assert low == -high < -0.5


def test_the_report_as_text(
    corpus: Path, asked: items.Items, tmp_path: Path, update_golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two splits, one run to compare with; what depends on versions is left out."""
    undrawn.undraw_plots(monkeypatch.setattr)
    rows = [row for row in gold(asked) if row["id"].startswith((GQA, POPE))]
    worse = [row | {"turns": row["turns"] if place % 3 else ["none"]} for place, row in enumerate(rows)]
    options = ("--split", GQA, "--split", POPE, "--resamples", "200")
    for name, given in (("gold", rows), ("worse", worse)):
        more = ("--against", tmp_path / "gold", "--published", "vpt:2b-dino-512") if name == "worse" else ()
        file = written(tmp_path, given)
        done = evaluate("--predictions", file, "--data", corpus, "--out", tmp_path / name, *options, *more)
        assert done.exit_code == 0, done.output
    text = (tmp_path / "worse" / "report.md").read_text(encoding="utf-8")
    golden_text.check_text("evaluation_report.md", text.partition("## What these figures depend on")[0], update_golden)
