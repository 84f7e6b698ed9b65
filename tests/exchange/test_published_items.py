"""A published file as a page: crops out of file names, views out of placeholders, problems of the linter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import error, run
from PIL import Image
from test_published import ALIGNMENT, PLAIN, TWO, action, region, row, span

from vpt_data.errors import UsageError
from vpt_data.exchange.published.items import document
from vpt_data.exchange.published.lint import lint
from vpt_data.inspect.view.choose import Choice

GOOD = [region(), action(), PLAIN, ALIGNMENT, TWO]


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "vpt.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_views_are_those_of_the_placeholders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.effect_noise((500, 375), 80).convert("RGB").save(tmp_path / "a/b.jpg")
    made = document(written(tmp_path, GOOD), Choice(), tmp_path)
    assert made.chosen == "All 5 rows of vpt.json."
    assert [item.id for item in made.items] == [f"row {number}" for number in range(5)]
    look = made.items[0]
    assert [(view.turn, view.image, view.encoder, view.cells) for view in look.views] == [
        (0, 0, "vlm", None),
        (2, 0, "vlm", (0, 0, 7, 6)),
    ]
    assert look.views[1].box == (0, 0, 500, 328) and look.views[1].src in made.pictures
    (image,) = look.images
    assert (image.path, image.width, image.height) == ("a/b.jpg", 500, 375)
    assert look.turns[1].parts[0].view == 1
    assert [view.encoder for view in made.items[1].views] == ["vlm", "dino"]
    assert made.items[2].images[0].path == "dir_with/under_scores.v2/a_b.jpg"
    assert [view.cells for view in made.items[4].views] == [None, (0, 0, 1, 1), (2, 2, 3, 3)]
    assert not any(item.problems for item in made.items)


def test_problems_are_those_that_the_linter_counts(tmp_path: Path) -> None:
    rows = [*GOOD, region(span(0, 0, 8, 6), "a/b.jpg_0,0,562,328"), row("hello"), {"messages": 5}, 7, *[PLAIN] * 40]
    path = written(tmp_path, rows)
    made = document(path, Choice(500), None)
    found: dict[str, int] = {}
    for item in made.items:
        for problem in item.problems:
            found[problem.kind] = found.get(problem.kind, 0) + 1
    assert found == {finding.rule: finding.count for finding in lint(path).findings}
    assert len(made.items) == len(rows)
    some = document(path, Choice(20), None)
    assert {"row 5", "row 6"} & {item.id for item in some.items}
    worst = document(path, Choice(20, problems=True), None)
    assert {item.id for item in worst.items} == {"row 5", "row 6", "row 7", "row 8"}


def test_rows_by_id(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    assert [item.id for item in document(path, Choice(ids=["row 3"]), None).items] == ["row 3"]
    with pytest.raises(UsageError, match=r"^No row has the id 'row 9'; "):
        document(path, Choice(ids=["row 9"]), None)


def test_the_command_makes_a_page(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    lines = run("view", path, "--raw", tmp_path).stdout.splitlines()
    page = tmp_path / "vpt.json.html"
    assert lines == [f"Page: {page}  {page.stat().st_size / 1e6:.1f} MB, 5 rows", "All 5 rows of vpt.json."]
    for option in (["--where", "k = 8"], ["--against", tmp_path], ["--dropped"], ["--serve"]):
        due = f"{path}: --where, --against, --dropped and --serve need a corpus, and this is a file."
        assert error("view", path, *option, code=2) == due
    (tmp_path / "x.txt").write_text("x")
    assert "expected a corpus folder or a published VPT file" in error("view", tmp_path / "x.txt")
