"""The commands without arguments: a small model learns to look at drawn plates, and is asked about others."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from helpers.pages import DOCS
from helpers.soak import in_the_soak
from PIL import Image
from runs import start

from bench import plates
from trainer import config, entry, generate
from trainer.evaluate import main as evaluate
from trainer.evaluation.asking.questions import INTERVENTIONS, questions
from trainer.training import run_folder
from vpt_data.corpus.reader import open_corpus

SMALL = ["--set", "optim.steps=2"]
RUN = Path("runs/plates")
#: The interventions on a look at a region: nothing here looks through an encoder.
LOOKS = {name for name in INTERVENTIONS if not name.startswith("control=")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def few(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and a world with few plates."""
    monkeypatch.setattr(entry, "PICTURES", {"train": 30, "validation": 6, "unseen": 12})
    return place


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("evaluations/plates/results.json").read_text(encoding="utf-8"))
    return found


def test_a_run_says_what_was_learned_and_what_comes_next(few: Path) -> None:
    found = start(*SMALL)
    assert found.exit_code == 0, found.output
    assert f"Drawing 48 pictures of plates: {entry.plates_root() / 'images'}\n" in found.stderr
    first, note, head, _, *figures, after = found.stdout.splitlines()
    assert first.startswith("Trained: runs/plates  2 steps, loss ")
    assert first.endswith(" on the split validation")
    rows = len((entry.plates_root() / "validation.jsonl").read_text().splitlines())
    assert note.startswith(f"On {rows} rows that it was not trained on, ")
    assert head.split() == ["tokens", "right", "most", "frequent"]
    assert [line.split()[0] for line in figures] == ["text", "region", "x", "y"]
    assert after == "Next: python -m trainer.evaluate"
    again = start()
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: runs/plates: holds a run; add --resume to continue it, or give another folder with --out.\n",
    )


def test_an_evaluation_trains_the_default_run_first(few: Path) -> None:
    RUN.mkdir(parents=True)
    few_steps = msgspec.to_builtins(config.load("plates", SMALL[1:]))
    (RUN / "config.json").write_text(json.dumps(few_steps))  # as a start leaves it that died early
    found = CliRunner().invoke(evaluate, ["--json", "--max-new-tokens", "8"])
    assert found.exit_code == 0, found.output
    assert found.stderr.startswith("runs/plates is not there; it is trained first, for a minute or two.\n")
    assert "Trained: runs/plates  2 steps, " in found.stderr
    assert json.loads(found.stdout) == results()
    rows = [json.loads(line) for line in (entry.plates_root() / "unseen.jsonl").read_text().splitlines()]
    split = results()["splits"]["plates_region_test"]
    assert (split["rows"], split["images"], split["metric"]) == (len(rows), 12, "exact")
    assert split["regions"]["best_iou"]["value"] > 0.6
    assert {path.parent.name for path in Path("evaluations/plates").glob("*/records.parquet")} == LOOKS
    # Trained to its end it is asked as it is.
    again = CliRunner().invoke(evaluate, ["--max-new-tokens", "8"])
    assert again.exit_code == 0, again.output
    assert "trained" not in again.stderr.lower()
    place = few / "seed-0"
    shutil.copytree("evaluations/plates", place / "own")
    lines = list(plates.report([place, place]))
    assert lines[0] == f"{len(rows)} rows on 12 pictures, 2 seeds"
    shown = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert {*plates.WHAT.values(), *plates.REGIONS.values(), "majority by question"} < set(shown)
    assert {name for name in plates.WHAT if "=" in name} == LOOKS


def test_plates_are_asked_as_they_were_learned_without_the_sentence_that_asks_for_a_look(few: Path) -> None:
    corpus = open_corpus(entry.plates_corpus("plates_eval"))
    wanted = {"plates_region_test": [row["id"] for row in corpus.rows(columns=["id"], images=False)]}
    asked = [row["messages"] for row in questions(corpus, wanted, "prompted")]
    assert asked == [row["messages"] for row in questions(corpus, wanted, "free")]
    assert len(asked) >= 6 and all(one[-1]["content"].endswith(" plate?\n<image>") for one in asked)


def documented() -> list[str]:
    """The arguments of the command on the page that draws what was looked at."""
    page = (DOCS / "trainer.md").read_text(encoding="utf-8").replace("\\\n", " ")
    [line] = [
        line for line in page.splitlines() if line.startswith("python -m trainer.generate --checkpoint runs/plates")
    ]
    return [word.replace("\\n", "\n") for word in shlex.split(line.replace("$'", "'"))][3:]


def asked_as_documented() -> tuple[str, Path]:
    """What it says, and the picture that it writes; of the cache folder the page names the usual one."""
    line = documented()
    usual, _, rest = line[line.index("--image") + 1].rpartition("/images/")
    assert Path(usual).name == entry.plates_root().name
    line[line.index("--image") + 1] = str(entry.plates_root() / "images" / rest)
    found = CliRunner().invoke(generate.main, line)
    assert found.exit_code == 0, found.output
    return found.output, Path(line[line.index("--save") + 1])


def test_the_command_on_the_page_draws_a_picture(few: Path) -> None:
    assert start(*SMALL).exit_code == 0
    torch.set_num_threads(2)
    _, seen = asked_as_documented()
    with Image.open(seen) as image:
        assert image.size == (112, 112)
    assert torch.get_num_threads() == 1, "more threads make a small model slower"


@in_the_soak
def test_the_default_run_learns_to_look(place: Path) -> None:
    assert start().exit_code == 0
    last = run_folder.last_validation(RUN)
    assert min(last["accuracy"].values()) > 0.95
    assert last["majority"]["x"] < 0.4
    found = CliRunner().invoke(evaluate, [])
    assert found.exit_code == 0, found.output
    split = results()["splits"]["plates_region_test"]
    assert split["figures"]["score"]["value"] > 0.95
    assert split["regions"]["iou_box"]["value"] > 0.7
    arms = {name: arm["plates_region_test"] for name, arm in results()["interventions"].items()}
    assert arms["crop=oracle"]["changed"] < 30, "its own crops are the true ones"
    for name in ("crop=shifted", "crop=random", "crop=whole", "crop=none", "tokens=random"):
        assert arms[name]["difference"]["high"] < -0.5, name
    said, _ = asked_as_documented()
    assert "looked at: region [" in said
