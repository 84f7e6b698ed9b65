"""The command line: results on stdout, everything else on stderr, one sentence an error, the promised exit codes."""

from __future__ import annotations

import functools
import gzip
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import end_to_end
from helpers import image_files as make
from helpers.command import error, run
from helpers.end_to_end import OWN
from helpers.packed import tarred
from PIL import Image

from vpt_data.cli.main import main
from vpt_data.errors import RawError
from vpt_data.synthetic import write_sample


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(12))
    end_to_end.own_images(root, 4)
    return root


@pytest.fixture
def command(tmp_path: Path, raw: Path) -> list[str | Path]:
    """A build that works: twelve own rows."""
    own = end_to_end.recipe_file(tmp_path)
    return ["build", "--recipe", own, "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1"]


def test_a_build_says_what_became_of_every_record(command: list[str | Path], tmp_path: Path) -> None:
    result = run(*command)
    assert (result.exit_code, result.stderr) == (0, "")
    head, _, row, *rest = result.stdout.splitlines()
    assert head.split() == ["take", "expected", "read", "repaired", "dropped", "kept"]
    assert row.split() == ["mine", "all", "12", "-", "-", "12"]
    made = json.loads((tmp_path / "corpus/manifest.json").read_text())
    assert f"Built: {tmp_path / 'corpus'}  12 rows in 4 shards" in rest
    assert f"fingerprint: {made['fingerprint']}" in rest


def test_json_is_one_object_and_nothing_else(command: list[str | Path], tmp_path: Path) -> None:
    result = run(*command, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (tmp_path / "corpus/manifest.json").read_text()
    assert json.loads(result.stdout)["components"][0]["kept"] == 12


def test_a_rerun_says_that_it_is_there(command: list[str | Path], tmp_path: Path) -> None:
    first = run(*command, "--json")
    before = end_to_end.contents(tmp_path / "corpus")
    again = run(*command)
    assert again.exit_code == 0
    assert f"Already built: {tmp_path / 'corpus'}" in again.stdout
    assert run(*command, "--json").stdout == first.stdout
    assert end_to_end.contents(tmp_path / "corpus") == before


def test_progress_is_shown_on_a_terminal_only_and_there_on_stderr(command: list[str | Path]) -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    line = [sys.executable, "-m", "vpt_data", *map(str, command), "--json"]
    result = subprocess.run(line, stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    assert json.loads(result.stdout)["mode"] == "reference"
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    assert "reading: 100%" in shown
    assert "writing: 100%" in shown


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from vpt_data.cli.main import main; main(['--help'], standalone_mode=False); "
        "heavy = {'torch', 'datasets', 'pandas', 'pyarrow', 'numpy', 'PIL', 'pycocotools'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    for name in ("build", "sample", "sources", "recipes", "render", "check", "stats"):
        assert f"\n  {name}" in result.stdout


def test_a_dry_run_writes_nothing(command: list[str | Path], tmp_path: Path) -> None:
    before = end_to_end.contents(tmp_path)
    result = run(*command, "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "read     own/rows.jsonl\nwrite    train: 4 shards\n"
    assert json.loads(run(*command, "--dry-run", "--json").stdout) == {
        "read": ["own/rows.jsonl"], "missing": {}, "not_checked": [], "shards": {"train": 4},
    }  # fmt: skip
    assert end_to_end.contents(tmp_path) == before
    assert not (tmp_path / "corpus").exists()


def test_a_limit_is_marked(command: list[str | Path], tmp_path: Path) -> None:
    result = run(*command, "--limit", "5")
    assert "limited: made with --limit, not for publication" in result.stdout.splitlines()
    made = json.loads((tmp_path / "corpus/manifest.json").read_text())
    assert (made["limited"], made["components"][0]["read"]) == (True, 5)
    assert "Already built" in run(*command, "--limit", "5").stdout
    expected = f"{tmp_path / 'corpus'}: holds a corpus with other --limit; use --fresh to replace it."
    assert error(*command) == expected


def test_missing_files_are_named(sample_root: Path, tmp_path: Path) -> None:
    recipe = end_to_end.recipe_file(
        tmp_path,
        OWN + '\n[take.gone]\nsource = "viscot"\ndataset = "dude"\ntemplate = "plain"\ntask = "text_ocr"\ncount = 7\n',
    )
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(3))
    end_to_end.own_images(raw, 1)
    result = run("build", "--recipe", recipe, "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1")
    assert result.exit_code == 0
    place = "visual_cot/metadata/dude_cot_train.jsonl"
    assert f"missing: gone: {place}" in result.stdout.splitlines()
    assert result.stderr == f"Warning: take gone: {place}: its file is not under the raw root.\n"
    part = end_to_end.account(tmp_path / "corpus")["gone"]
    assert (part.expected, part.read, part.kept) == (7, 0, 0)


def test_a_damaged_archive_is_a_note_where_it_costs_rows(command: list[str | Path], raw: Path) -> None:
    """Once, whatever the number of rows, whoever looked into it; also where the corpus is there already."""
    pictures = {f"{n:03d}.png": make.encoded(Image.new("RGB", (640, 480), (n, 0, 0)), "PNG") for n in range(4)}
    (raw / "own/images.tar").write_bytes(tarred(pictures)[:6000])
    quiet = run(*command)
    assert (quiet.exit_code, quiet.stderr) == (0, ""), "in reference mode nothing is looked into"
    shutil.rmtree(raw / "own/images")
    for more in ("--fresh", "--images=embed"):
        result = run(*command, "--images", "embed", "--workers", "2", more)
        assert result.exit_code == 0, result.output
        notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
        assert len(notes) == 1
        assert notes[0].startswith("Note: own/images.tar: ")
        assert notes[0].endswith("; get what is missing, or download it again.")


def test_a_second_copy_is_a_note(tmp_path: Path, sample_root: Path) -> None:
    raw = end_to_end.linked_copy(sample_root, tmp_path / "raw")
    other = raw / "visual_cot/viscot_dataset/gqa_cot_train.jsonl"
    other.parent.mkdir()
    other.write_text("{}")
    result = run("build", "--recipe", "sample", "--raw", raw, "--out", tmp_path / "corpus", "--dry-run")
    assert result.stderr == "Note: visual_cot/viscot_dataset/gqa_cot_train.jsonl is a second copy and was not read.\n"


def test_a_gzipped_copy_beside_an_own_file_is_a_second_copy(command: list[str | Path], raw: Path) -> None:
    """A pattern matches both; the one that is not read is named, since it may hold other rows."""
    text = (raw / "own/rows.jsonl").read_bytes()
    (raw / "own/rows.jsonl.gz").write_bytes(gzip.compress(text))
    result = run(*command, "--set", 'take.mine.files=["own/rows.jsonl", "own/rows*"]')
    assert (result.exit_code, result.stderr) == (0, "Note: own/rows.jsonl.gz is a second copy and was not read.\n")


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "mixvrt_sam"], ["sources"]])
def test_listings_are_text_or_one_json_object(arguments: list[str]) -> None:
    as_text, as_json = run(*arguments), run(*arguments, "--json")
    assert (as_text.exit_code, as_text.stderr, as_json.exit_code, as_json.stderr) == (0, "", 0, "")
    assert json.loads(as_json.stdout)
    assert as_text.stdout != as_json.stdout


@pytest.mark.parametrize("name", ["mixvrt_sam_free", "sample", "vpt_eval"])
def test_a_resolved_recipe_is_a_recipe(tmp_path: Path, name: str) -> None:
    shown = run("recipes", name).stdout
    assert tomllib.loads(shown) == json.loads(run("recipes", name, "--json").stdout)
    again = end_to_end.recipe_file(tmp_path, shown, "again.toml")
    assert run("recipes", again).stdout == shown
    assert "extends" not in tomllib.loads(shown)


def test_sample_makes_the_same_root_again(sample_root: Path, tmp_path: Path) -> None:
    result = run("sample", "--out", tmp_path / "raw", "--rows", "200", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["rows"]["own/receipts.csv"] == 12
    assert end_to_end.contents(tmp_path / "raw") == end_to_end.contents(sample_root)


def test_raw_sample_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpt_data.api.write_sample", functools.partial(write_sample, rows=40))
    arguments = ("build", "--recipe", "sample", "--raw", "sample", "--dry-run", "--json")
    assert "own/signs.jsonl" in json.loads(run(*arguments, XDG_CACHE_HOME=str(tmp_path)).stdout)["read"]
    made = (tmp_path / "vpt-data/sample-raw/sample.json").stat().st_mtime_ns
    assert run(*arguments, XDG_CACHE_HOME=str(tmp_path)).exit_code == 0
    assert (tmp_path / "vpt-data/sample-raw/sample.json").stat().st_mtime_ns == made


def test_bare_commands_use_raw_and_corpora(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("build", "--recipe", end_to_end.recipe_file(tmp_path), "--workers", "1")
    assert run(*arguments, VPT_DATA_RAW=None).exit_code == 0
    assert (tmp_path / "corpora/own/manifest.json").is_file()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(*arguments, VPT_DATA_RAW=str(raw)).exit_code == 0
    assert (tmp_path / "elsewhere/corpora/own/manifest.json").is_file()


def test_check_finds_a_damaged_shard(command: list[str | Path], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    assert run(*command).exit_code == 0
    assert run("check", corpus).exit_code == 0
    shard = next((corpus / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    result = run("check", corpus, "--json")
    assert (result.exit_code, result.stderr) == (3, "")
    assert isinstance(json.loads(result.stdout), dict)


def test_strict_leaves_the_shards_and_no_manifest(command: list[str | Path], raw: Path, tmp_path: Path) -> None:
    end_to_end.own_root(raw, [*end_to_end.own_rows(9), {**end_to_end.own_rows(1, 9)[0], "answer": ""}])
    corpus = tmp_path / "corpus"
    result = run(*command, "--strict")
    assert result.exit_code == 1
    finding = "take mine: 10.00% of 10 records were dropped (empty_answer 1), the recipe tolerates 1.00%."
    assert result.stderr.splitlines() == [
        f"Error: {finding}",
        (
            f"Error: {corpus}: --strict found the above, so no manifest was written; the shards stay, and the same "
            "command without --strict completes the corpus."
        ),
    ]
    assert len(list((corpus / "data").glob("*.parquet"))) == 4
    assert not (corpus / "manifest.json").exists()
    shards = end_to_end.shards(corpus)
    lenient = run(*command)
    assert (lenient.exit_code, lenient.stderr) == (0, f"Warning: {finding}\n")
    assert end_to_end.shards(corpus) == shards
    assert (corpus / "manifest.json").is_file()
    assert not (corpus / ".work").exists()
    again = run(*command, "--strict")
    assert again.exit_code == 1
    assert again.stderr.splitlines() == [
        f"Error: {finding}",
        f"Error: {corpus}: --strict found the above in the corpus that is there.",
    ]
    assert run(*command).stderr == f"Warning: {finding}\n"


def test_a_corpus_without_a_row_is_none(command: list[str | Path], raw: Path, tmp_path: Path) -> None:
    end_to_end.own_root(raw, [{**row, "answer": ""} for row in end_to_end.own_rows(3)])
    result = run(*command)
    assert result.exit_code == 1
    corpus = tmp_path / "corpus"
    sentence = f"Error: {corpus}: the corpus has no rows; see dropped.parquet there for the reasons."
    assert result.stderr.splitlines()[-1] == sentence
    assert not (corpus / "manifest.json").exists()
    assert (corpus / "dropped.parquet").is_file()


def test_strict_is_content_within_the_tolerance(command: list[str | Path], raw: Path) -> None:
    end_to_end.own_root(raw, [*end_to_end.own_rows(9), {**end_to_end.own_rows(1, 9)[0], "answer": ""}])
    result = run(*command, "--strict", "--set", "tolerance=0.1")
    assert (result.exit_code, result.stderr) == (0, "")


def test_fresh_replaces_what_a_build_wrote(command: list[str | Path], raw: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    assert run(*command, "--set", "shards=8").exit_code == 0
    refused = "{}: holds a corpus with other {}; use --fresh to replace it."
    before = end_to_end.contents(corpus)
    assert error(*command) == refused.format(corpus, "recipe")
    assert error(*command, "--images", "embed") == refused.format(corpus, "recipe, --images")
    end_to_end.own_root(raw, end_to_end.own_rows(5))
    assert error(*command, "--set", "shards=8") == refused.format(corpus, "input files")
    assert end_to_end.contents(corpus) == before
    assert run(*command, "--fresh").exit_code == 0
    assert len(end_to_end.shards(corpus)) == 4
    assert end_to_end.account(corpus)["mine"].read == 5


def test_debug_shows_the_traceback(command: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "raw/own/rows.jsonl").write_text("")
    result = CliRunner().invoke(main, ["--debug", *map(str, command)])
    assert isinstance(result.exception, RawError)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "--recipe", "sample", "--limit", "0"],
        ["build", "--recipe", "sample", "--images", "all"],
        ["build", "--recipe", "sample", "--bogus"],
        ["bogus"],
    ],
)
def test_a_wrong_command_line_is_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")


def test_too_little_memory_is_one_sentence(command: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("vpt_data.pipeline.build.write_shards", full)
    assert error(*command) == "Memory ran out; run the same command again with fewer --workers, or on a larger machine."


def test_an_unexpected_value_does_not_hide_an_error(command: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours stays a traceback: only errors meant for users are made into sentences."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vpt_data.pipeline.plan.make", broken)
    assert isinstance(run(*command).exception, ZeroDivisionError)


def test_every_command_that_reads_a_raw_root_finds_the_same_one(
    command: list[str | Path], raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*command)
    compare = ["check", tmp_path / "corpus", "--near-duplicates"]
    monkeypatch.chdir(tmp_path / "corpus")
    monkeypatch.delenv("VPT_DATA_RAW", raising=False)
    assert error(*compare, code=2).endswith("its images are not in the shards; give their raw root with --raw.")
    assert json.loads(run("sources", "--json").stdout)["raw"] is None
    monkeypatch.setenv("VPT_DATA_RAW", str(raw))
    assert run(*compare).exit_code == 0
    assert json.loads(run("sources", "--json").stdout)["raw"] == str(raw)
    monkeypatch.delenv("VPT_DATA_RAW")
    monkeypatch.chdir(raw.parent)
    assert raw.name == "raw"
    assert run(*compare).exit_code == 0
    assert json.loads(run("sources", "--json").stdout)["raw"] == "raw"
    assert error("sources", "--raw", "hf://datasets/org/name", code=1).startswith("hf://datasets/org/name: cannot be ")


def test_a_take_of_zero_expects_zero(raw: Path, tmp_path: Path) -> None:
    """`all` stands where the recipe asks for all, and nowhere else."""
    take = 'source = "table"\nfiles = ["own/rows.jsonl"]\ntemplate = "plain"\ntask = "general"\ncount = 0\n'
    none = f"{OWN}\n[take.none]\n{take}"
    recipe = end_to_end.recipe_file(tmp_path, none)
    result = run("build", "--recipe", recipe, "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1")
    lines = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if line.strip()}
    assert lines["none"] == "0"
    assert "all" in lines.values()
    card = (tmp_path / "corpus/README.md").read_text().splitlines()
    shown = next(line for line in card if line.startswith("| `none` |"))
    assert shown.split(" | ")[3] == "0"


def test_a_build_whose_images_are_missing_warns(command: list[str | Path], raw: Path, tmp_path: Path) -> None:
    for number in range(2):
        (raw / f"own/images/{number:03d}.jpg").unlink()
    warning = (
        "Warning: 2 of 4 images are not under the raw root, so their rows show nothing; check --raw and the key "
        "`images` of the takes, and see `vpt-data sources` for where images belong.\n"
    )
    assert run(*command).stderr == warning
    assert run(*command).stderr == warning, "also where the corpus is there already"
    assert json.loads((tmp_path / "corpus/manifest.json").read_text())["images"]["missing"] == 2
    (raw / "own/images/000.jpg").touch()
    few = run(*command, "--fresh")
    assert (few.exit_code, few.stderr) == (0, ""), "a few are counted and no more"
    assert "images: 4 distinct, 0 embedded, 1 not under the raw root" in few.stdout


def test_own_data_without_a_licence_warn(raw: Path, tmp_path: Path) -> None:
    recipe = end_to_end.recipe_file(tmp_path, OWN.replace('license = "CC0-1.0"\n', ""))
    result = run("build", "--recipe", recipe, "--raw", raw, "--out", tmp_path / "corpus", "--workers", "1", "--strict")
    warning = (
        "Warning: take mine: no licence is given for its rows, and the card says so; set `license` in the recipe to "
        "what you know of it.\n"
    )
    assert (result.exit_code, result.stderr) == (0, warning)
    assert "> **NO LICENCE GIVEN.**" in (tmp_path / "corpus/README.md").read_text()
