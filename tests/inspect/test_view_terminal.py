"""`vpt-data show`: one row in the terminal, its texts harmless, its picture where the terminal can show one."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import end_to_end, small_corpora
from helpers.command import error, run
from PIL import Image

from vpt_data.cli.main import main
from vpt_data.inspect.drops import Drop
from vpt_data.inspect.view.terminal import picture

PICTURE = Image.linear_gradient("L").convert("RGB").resize((300, 200))


def region_row(corpus: Path) -> dict[str, Any]:
    return next(row for row in end_to_end.rows(corpus) if row["take"] == "textvqa")


def test_a_row_is_printed(reference_corpus: Path, sample_root: Path) -> None:
    row = region_row(reference_corpus)
    origin = next(origin for origin in end_to_end.origins(reference_corpus) if origin["id"] == row["id"])
    lines = run("show", row["id"], "--corpus", reference_corpus, "--raw", sample_root).stdout.splitlines()
    assert lines[0] == f"{row['id']}  train, region, region"
    assert lines[1] == f"from {origin['file']}, record {origin['row']} counted from 0"
    assert lines[2].startswith("stored in data/train-0000")
    assert lines[3] == f"licence of the annotation: {row['license']}"
    info, look = row["image_info"][0], row["views"][1]
    size = f"{info['width']} x {info['height']}"
    assert f"image 0: {row['images'][0]['path']}, {size}, licence {info['license']}" in lines
    assert f"  box {', '.join(f'{edge:g}' for edge in row['regions'][0]['box'])}" in lines
    where = f"cells {look['cells']}, pixels {look['box']}"
    assert f"view 1: message 2 shows image 0 through vlm: {where}" in lines
    assert [line for line in lines if line.endswith("trained)")] == [
        "user (not trained)", "assistant (trained)", "user (not trained)", "assistant (trained)"
    ]  # fmt: skip
    assert lines[-1] == f"  {row['answers'][0]}"


def test_it_draws_a_picture_and_gives_json(reference_corpus: Path, sample_root: Path, tmp_path: Path) -> None:
    row, png = region_row(reference_corpus), tmp_path / "row.png"
    command = ["show", row["id"], "--corpus", reference_corpus, "--raw", sample_root, "--png", png]
    assert run(*command).stdout.endswith(f"\n\nPicture: {png}\n")
    with Image.open(png) as drawn:
        assert drawn.width > 500
    found = json.loads(run(*command, "--json").stdout)
    assert (found["id"], found["raw"]["question"]) == (row["id"], row["question"])


def test_an_unknown_id_is_a_sentence(reference_corpus: Path) -> None:
    sentence = error("show", "gqa/none", "--corpus", reference_corpus, code=2)
    assert sentence == "No row has the id 'gqa/none'; give an id as the column `id` has it, such as TAKE/KEY."


def test_hostile_text_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    hostile = "\x1b]0;owned\a\x1b[2J\x9b31m\u202eright to left\r\nover\x08\x00" + "x" * 100_000

    def change(row: dict[str, Any]) -> bool:
        row["messages"][0]["content"] = row["license"] = row["split"] = hostile
        row["images"] = [{"bytes": None, "path": hostile} for _ in row["images"]]
        row["regions"] = [{**region, "label": hostile} for region in row["regions"]]
        return True

    small_corpora.change_rows(corpus, change)
    found = run("show", sorted(end_to_end.ids(corpus))[0], "--corpus", corpus).stdout
    assert not set(found) & set("\x1b\x07\x9b\u202e\r\x08\x00")
    assert re.search(r"  \.\.\. and \d\d,\d{3} more characters\n", found)


def test_hostile_text_does_nothing_in_tables_and_errors(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    hostile = "\x1b]0;owned\a\r\nover"

    def change(row: dict[str, Any]) -> bool:
        row["id"], row["dataset"], row["answers"] = hostile + row["id"], hostile, [hostile]
        row["messages"] = row["messages"][:1]
        return True

    small_corpora.change_rows(corpus, change)
    found = run("stats", corpus).stdout
    assert "owned" in found and not set(found) & set("\x1b\x07\r")
    assert not [line for line in found.splitlines() if line.startswith("over")]
    drop = Drop("gqa", "gqa", None, None, hostile, 1, "malformed", hostile).text()
    assert drop == "\ufffd]0;owned\ufffd over line 1: \ufffd]0;owned\ufffd over"
    gone = CliRunner().invoke(main, ["stats", str(tmp_path / "\x1b[2Jgone")])
    assert gone.exit_code == 1 and gone.stderr.startswith("Error: ") and "\x1b" not in gone.stderr


@pytest.mark.parametrize(
    "environment", [{"TERM": "xterm-kitty"}, {"KITTY_WINDOW_ID": "1"}, {"TERM_PROGRAM": "ghostty"}]
)
def test_kitty_gets_a_png_in_pieces(environment: dict[str, str]) -> None:
    written = picture(Image.effect_noise((300, 200), 90).convert("RGB"), environment, 80)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", written)
    assert [head for head, _ in pieces] == ["a=T,f=100,m=1", *["m=1"] * (len(pieces) - 2), "m=0"]
    assert all(len(piece) <= 4096 for _, piece in pieces)
    assert Image.open(io.BytesIO(base64.b64decode("".join(piece for _, piece in pieces)))).size == (300, 200)


def test_iterm_gets_a_png() -> None:
    written = picture(PICTURE, {"TERM_PROGRAM": "iTerm.app"}, 80)
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=300px:(.*)\a\n", written)
    assert found is not None
    data = base64.b64decode(found[2])
    assert (len(data), Image.open(io.BytesIO(data)).size) == (int(found[1]), (300, 200))


def test_other_terminals_get_blocks() -> None:
    lines = picture(PICTURE, {"TERM": "xterm-256color"}, 60).splitlines()
    assert {line.count("\u2580") for line in lines} == {60}
    assert len(lines) == 20 and all(line.endswith("\x1b[0m") for line in lines)
    assert picture(Image.new("RGB", (1, 1)), {}, 80).count("\u2580") == 1


def test_no_picture_where_output_is_no_terminal(reference_corpus: Path, sample_root: Path) -> None:
    row = region_row(reference_corpus)
    assert "\x1b" not in run("show", row["id"], "--corpus", reference_corpus, "--raw", sample_root).stdout
