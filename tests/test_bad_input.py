"""Bad input: one sentence that says where, what was found, what was expected and what to do; nothing is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import end_to_end
from helpers.command import error, run
from helpers.end_to_end import OWN


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(12))
    end_to_end.own_images(root, 4)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "corpus"


@pytest.fixture
def command(tmp_path: Path, raw: Path, out: Path) -> list[str | Path]:
    own = end_to_end.recipe_file(tmp_path)
    return ["build", "--recipe", own, "--raw", raw, "--out", out, "--workers", "1"]


def recipe_error(tmp_path: Path, text: str, *overrides: str) -> str:
    sets = [part for override in overrides for part in ("--set", override)]
    recipe = end_to_end.recipe_file(tmp_path, text)
    return error("build", "--recipe", recipe, "--raw", tmp_path, "--out", tmp_path / "corpus", *sets, code=2)


def test_there_is_no_raw_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert error("build", "--recipe", "sample", code=2, VPT_DATA_RAW=None) == (
        "No raw root: ./raw is not there and VPT_DATA_RAW is not set; give --raw DIR, or --raw sample to try the "
        "synthetic one, or see `vpt-data sources` for where to get each upstream."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("by_variable", [True, False])
def test_the_raw_root_is_not_there(tmp_path: Path, by_variable: bool) -> None:
    gone = tmp_path / "gone"
    where = [] if by_variable else ["--raw", gone]
    found = error("build", "--recipe", "sample", *where, VPT_DATA_RAW=str(gone))
    assert found == f"{gone}: there is no such raw root; give --raw DIR or set VPT_DATA_RAW."


def test_the_raw_root_is_a_file(tmp_path: Path) -> None:
    file = end_to_end.recipe_file(tmp_path)
    found = error("build", "--recipe", "sample", "--raw", file, "--out", tmp_path / "corpus")
    assert found == f"{file}: the raw root is a file; expected the folder that holds the owners' trees."


def test_the_raw_root_holds_something_else(tmp_path: Path) -> None:
    found = error("build", "--recipe", "mixvrt_dino", "--raw", tmp_path, "--out", tmp_path / "corpus")
    assert found == (
        f"{tmp_path}: none of the files of recipe mixvrt_dino are there, for instance "
        "visual_cot/metadata/docvqa_cot_train.jsonl; check --raw, and see `vpt-data sources` for where each upstream "
        "belongs."
    )
    assert list(tmp_path.iterdir()) == []


def test_no_such_recipe(tmp_path: Path) -> None:
    found = error("build", "--recipe", "mixvrt_dno", "--raw", tmp_path, code=2)
    assert found.startswith("Unknown recipe 'mixvrt_dno'; did you mean mixvrt_dino or ")
    assert found.endswith("?")
    found = error("build", "--recipe", "zzz", "--raw", tmp_path, code=2)
    assert found.startswith("Unknown recipe 'zzz'; known: ablation_looks_0, ")
    found = error("build", "--recipe", "zzz.toml", "--raw", tmp_path, code=2)
    assert found == "zzz.toml: there is no such recipe file; give a path, or a name that `vpt-data recipes` lists."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("shards =", "shard ="), "Recipe {own}: Unknown key 'shard'; did you mean shards?"),
        (
            ("images =", "image ="),
            "Recipe {own}: Unknown key 'image'; did you mean images or distinct_images? (at take.mine)",
        ),
        (("{ box =", "{ boxs ="), "Recipe {own}: Unknown key 'boxs'; did you mean box? (at take.mine.columns)"),
        (
            ('"region"', '"regoin"'),
            "Recipe {own}: Unknown value of template 'regoin'; did you mean region? (at take.mine.template).",
        ),
        (
            ('"table"', '"tabel"'),
            "Recipe {own}: Unknown value of source 'tabel'; did you mean table? (at take.mine.source).",
        ),
        (
            ("shards = 4", "shards = 'many'"),
            'Recipe {own}: shards is "many"; expected a whole number, for instance shards = 8.',
        ),
        (("shards = 4", "shards = 0"), "Recipe {own}: shards is 0; expected 1 to 99999."),
        (("shards = 4", "shards = "), "{own}: not valid TOML (Invalid value (at line 3, column 10))."),
        (
            ("own/rows", "../rows"),
            ("Recipe {own}, take mine: files: '../rows.jsonl' leads out of the raw root; give a path relative to it."),
        ),
    ],
)
def test_a_recipe_that_cannot_be(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    assert change[0] in OWN
    assert recipe_error(tmp_path, OWN.replace(*change)) == expected.format(own=tmp_path / "own.toml")


def test_a_wrong_value_in_a_recipe_without_takes(tmp_path: Path) -> None:
    found = recipe_error(tmp_path, "shards = 'many'")
    assert found == (f'Recipe {tmp_path}/own.toml: shards is "many"; expected a whole number, for instance shards = 8.')


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("take.mien.count=3", "Unknown take 'mien'; did you mean mine?"),
        ("take.mine.weihgt=3", "Recipe {own}: Unknown key 'weihgt'; did you mean weight? (at take.mine)"),
        ("extends=sample", "--set 'extends=sample': a recipe says in its own file what it extends; write it there."),
        ("edge", "--set 'edge': expected key=value, for instance take.gqa.count=1000."),
        ("edge=round", "Recipe {own}: Unknown value of edge 'round'; known: floor, inside, legacy (at edge)."),
        ("k=0", "Recipe {own}: k is 0; expected 1 to 1000."),
        ("take.mine.k=0", "Recipe {own}, take mine: k is 0; expected 1 to 1000."),
        ("crop_margin_cells=-1", "Recipe {own}: crop_margin_cells is -1; expected 0 to 1000."),
        ("control_tokens=2147483648", "Recipe {own}: control_tokens is 2147483648; expected 0 to 1000."),
        ("shards.train=4", "--set 'shards.train=4': shards is a value, not a table."),
    ],
)
def test_an_override_that_cannot_be(tmp_path: Path, override: str, expected: str) -> None:
    assert recipe_error(tmp_path, OWN, override) == expected.format(own=tmp_path / "own.toml")


def test_a_folder_lies_where_a_file_should(sample_root: Path, tmp_path: Path) -> None:
    raw = end_to_end.linked_copy(sample_root, tmp_path / "raw")
    for name in ("visual_cot/metadata/gqa_cot_train.jsonl", "own/receipts.csv"):
        (raw / name).unlink()
        (raw / name).mkdir()
        found = error("build", "--recipe", "sample", "--raw", raw, "--out", tmp_path / "corpus")
        assert found == f"{name}: this is a folder; expected the file of that name."
        (raw / name).rmdir()
        (raw / name).hardlink_to(sample_root / name)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("target", ["gone", "itself"])
@pytest.mark.parametrize(
    ("name", "recipe"), [("own/rows.jsonl", "own.toml"), ("pope/coco/coco_pope_popular.json", "vpt_eval")]
)
def test_a_link_leads_nowhere(tmp_path: Path, raw: Path, name: str, recipe: str, target: str) -> None:
    end_to_end.recipe_file(tmp_path)
    link = raw / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(link if target == "itself" else tmp_path / "gone")
    which = tmp_path / recipe if recipe.endswith(".toml") else recipe
    found = error("build", "--recipe", which, "--raw", raw, "--out", tmp_path / "corpus")
    assert found == f"{name}: this link leads nowhere; expected a file, or a link to one."


def test_a_file_that_may_not_be_read(command: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions stop no superuser, so the refusal is played."""
    real = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "rows.jsonl":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert error(*command) == "own/rows.jsonl: cannot be read (Permission denied); expected a file."


def test_an_empty_file(command: list[str | Path], raw: Path, out: Path) -> None:
    (raw / "own/rows.jsonl").write_text("")
    assert error(*command) == "own/rows.jsonl: the file is empty; expected JSON lines or one JSON array."
    assert not (out / "manifest.json").exists()
    end_to_end.own_root(raw, end_to_end.own_rows(12))
    assert run(*command, "--fresh").exit_code == 0
    assert end_to_end.account(out)["mine"].kept == 12


def test_an_empty_file_of_an_upstream(sample_root: Path, tmp_path: Path) -> None:
    raw = end_to_end.linked_copy(sample_root, tmp_path / "raw")
    name = "visual_cot/metadata/vsr_cot_train.jsonl"
    end_to_end.replace(raw / name, b"")
    found = error("build", "--recipe", "sample", "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1")
    assert found == f"{name}: the file is empty; expected JSON lines or one JSON array."


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "\x00\x01\x02", '"just text"\n'])
def test_a_file_in_another_format(command: list[str | Path], raw: Path, content: str) -> None:
    (raw / "own/rows.jsonl").write_text(content)
    found = error(*command)
    assert found.startswith("own/rows.jsonl: the file starts with b")
    assert found.endswith("; expected JSON lines or one JSON array.")


def test_half_a_line_is_one_record_less(command: list[str | Path], raw: Path, out: Path) -> None:
    whole = end_to_end.lines(end_to_end.own_rows(12))
    (raw / "own/rows.jsonl").write_text(whole[:-40])
    result = run(*command)
    finding = "take mine: 8.33% of 12 records were dropped (malformed 1), the recipe tolerates 1.00%."
    assert (result.exit_code, result.stderr) == (0, f"Warning: {finding}\n")
    (drop,) = end_to_end.drops(out)
    assert (drop["file"], drop["line"], drop["reason"]) == ("own/rows.jsonl", 12, "malformed")
    assert "truncated" in drop["detail"]
    strict = run(*command, "--fresh", "--strict")
    assert (strict.exit_code, strict.stderr.splitlines()[0]) == (1, f"Error: {finding}")


def test_nothing_but_half_a_line(command: list[str | Path], raw: Path, out: Path) -> None:
    (raw / "own/rows.jsonl").write_text('{"image": "a.jpg", "question": "Wh')
    result = run(*command)
    assert result.exit_code == 1
    expected = f"Error: {out}: the corpus has no rows; see dropped.parquet there for the reasons."
    assert result.stderr.splitlines()[-1] == expected
    assert [drop["reason"] for drop in end_to_end.drops(out)] == ["malformed"]


def test_a_column_that_is_not_in_the_file(command: list[str | Path], raw: Path) -> None:
    rows = [
        {("frage" if key == "question" else key): value for key, value in row.items()} for row in end_to_end.own_rows(3)
    ]
    end_to_end.own_root(raw, rows)
    found = error(*command, code=2)
    assert "own/rows.jsonl" in found
    assert "question" in found
    assert "frage" in found


def test_the_output_folder_holds_another_corpus(command: list[str | Path], out: Path) -> None:
    assert run(*command).exit_code == 0
    before = end_to_end.contents(out)
    found = error(*command, "--set", "k=16")
    assert found == f"{out}: holds a corpus with other recipe; use --fresh to replace it."
    assert end_to_end.contents(out) == before


def test_the_output_folder_is_a_file(command: list[str | Path], out: Path) -> None:
    out.write_text("mine")
    for more in ([], ["--fresh"]):
        assert error(*command, *more) == f"{out}: this is a file; give a folder for the corpus."
    assert out.read_text() == "mine"


def test_the_output_folder_holds_other_files(command: list[str | Path], out: Path) -> None:
    (out / "data").mkdir(parents=True)
    (out / "data/precious.parquet").write_text("mine")
    for more in ([], ["--fresh"]):
        expected = f"{out}: the folder holds other files; give an empty or new folder for the corpus."
        assert error(*command, *more) == expected
    assert end_to_end.contents(out) == {"data/precious.parquet": b"mine"}


def test_the_output_folder_cannot_be_made(command: list[str | Path], out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = error(*command, "--out", tmp_path / "file/corpus")
    assert str(tmp_path / "file") in found


@pytest.mark.parametrize("name", ["check", "stats"])
def test_a_folder_that_is_no_corpus(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / "gone") in error(name, tmp_path / "gone")
    assert error(name, tmp_path) == (
        f"{tmp_path}: no manifest.json, so this is no corpus, or its build has not finished; run the build again."
    )
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": 99}))
    assert error(name, tmp_path).startswith(f"{tmp_path / 'manifest.json'}: not a manifest of this version (")


@pytest.mark.parametrize("window", [1 << 27, 900])
def test_bad_records_of_an_array_on_one_line_are_named_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """All of it is line 1, so that the line says nothing; windows count from the start of the file."""
    monkeypatch.setattr("vpt_data.upstream.rawfile.WINDOW_BYTES", window)
    text = '[take.all]\nsource = "llava"\ntemplate = "plain"\ntask = "instruction"\n'
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    records = [{"id": str(n), "image": f"coco/train2017/{n:012}.jpg", "conversations": talk} for n in range(30)]
    records[0]["conversations"], records[25]["conversations"] = "none", "none"
    file = tmp_path / "raw/llava/llava_v1_5_mix665k.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(records))
    (tmp_path / "all.toml").write_text(text)
    corpus = end_to_end.build(tmp_path / "all.toml", tmp_path / "raw", tmp_path / "corpus")
    details = sorted(drop["detail"] for drop in end_to_end.drops(corpus))
    assert [detail.partition(":")[0] for detail in details] == [
        "Expected `array`, got `str` - at `$.conversations`",
        "record 26 of the file",
    ]
    assert {drop["line"] for drop in end_to_end.drops(corpus)} == {1}
