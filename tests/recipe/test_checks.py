"""A recipe is checked as a whole when it is loaded; each mistake is one sentence that names the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import end_to_end

from vpt_data import recipe
from vpt_data.errors import UsageError

OWN = 'name = "own"\n' + end_to_end.own_take("mine")
OTHER = '\n[take.other]\nsource = "viscot"\ndataset = "gqa"\ntemplate = "region"\ntask = "spatial"\n'
TALKS = '\n[take.talks]\nsource = "llava"\ntemplate = "plain"\ntask = "instruction"\n'

_, *PARTS = (Path(__file__).parent / "mistakes.txt").read_text(encoding="utf-8").split("\n\n")
OVERRIDES, LINES = ([case.split("\n    ") for case in re.split(r"\n(?! )", part.strip())] for part in PARTS)


def problem(tmp_path: Path, text: str, *overrides: str) -> str:
    """The one sentence that refuses a recipe, without the recipe's name."""
    path = end_to_end.recipe_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        recipe.load(str(path), overrides)
    said = str(caught.value)
    assert said.startswith(f"Recipe {path}")
    return said.removeprefix(f"Recipe {path}").removeprefix(": ").removeprefix(", ")


def test_the_recipe_itself_is_fine(tmp_path: Path) -> None:
    assert recipe.load(str(end_to_end.recipe_file(tmp_path, OWN + OTHER + TALKS))).take.keys() == {
        "mine",
        "other",
        "talks",
    }


@pytest.mark.parametrize(("override", "expected"), OVERRIDES)
def test_a_mistake_is_one_sentence_that_names_the_key(tmp_path: Path, override: str, expected: str) -> None:
    assert problem(tmp_path, OWN + OTHER + TALKS, override) == expected


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_a_value_of_another_type_says_what_to_write(tmp_path: Path, line: str, expected: str) -> None:
    assert problem(tmp_path, OTHER + line) == expected


def test_what_is_missing_or_no_table(tmp_path: Path) -> None:
    """All that a take must have, and takes written as values."""
    expected = "take.a.source is missing; expected one of aurora_count, aurora_depth, coco_boxes, "
    assert problem(tmp_path, '[take.a]\ntask = "general"').startswith(expected)
    assert problem(tmp_path, "take = 3") == "take is 3; expected a table, for instance take = {  }."
    assert problem(tmp_path, "[take]\na = 3") == "take.a is 3; write a table, [take.a]."
    assert problem(tmp_path, 'name = "a"') == "it has no takes; add at least one [take.NAME] table."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("box = ", "label = "),
            (
                "template region needs boxes, and no column has them, so that it could never give a row; "
                "set columns.box to the column with the boxes, or to the four columns with their numbers."
            ),
        ),
        ((', height = "h"', ""), "only one of columns.width and columns.height is set; set both or neither."),
        (('files = ["own/rows.jsonl"]', ""), 'source table needs files = ["..."], relative to the raw root.'),
    ],
)
def test_own_data_that_could_never_give_a_row(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    assert problem(tmp_path, OWN.replace(*change)) == f"take mine: {expected}"


def test_two_grids_in_two_splits_are_fine(tmp_path: Path) -> None:
    """And rows that show no cells have no grid."""
    path = end_to_end.recipe_file(tmp_path, OWN + OTHER + TALKS)
    assert recipe.load(str(path), ["take.other.k=16", "take.other.split=fine"]).take["other"].k == 16
    assert recipe.load(str(path), ["take.talks.k=16"]).take["talks"].k == 16


@pytest.mark.parametrize("override", ["split=../../evil", "take.mine.split=../../evil", "name=../../evil"])
def test_nothing_is_written_outside_the_output_folder(tmp_path: Path, override: str) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(3))
    path = end_to_end.recipe_file(tmp_path, OWN)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError):
        end_to_end.build(path, raw, tmp_path / "a/b/out", override)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_recipe_extends_is_one_name(tmp_path: Path) -> None:
    path = end_to_end.recipe_file(tmp_path, 'extends = ["a", "b"]')
    with pytest.raises(UsageError) as caught:
        recipe.load(str(path))
    assert str(caught.value) == f'{path}: extends is ["a", "b"]; expected one recipe, for instance "mixvrt_dino".'


def test_records_can_be_had_again_of_an_earlier_take_only(tmp_path: Path) -> None:
    take = '[take.{}]\nsource = "{}"\ntemplate = "plain"\ntask = "general"\n'
    one, two = take.format("one", "pope"), take.format("two", "pope") + 'again = "one"\n'
    assert problem(tmp_path, two + one) == (
        "take two: again names 'one', which is no take before it; name one of: there is none."
    )
    assert problem(tmp_path, one.replace("pope", "cub") + two) == (
        "take two: again names 'one', which reads other files; give both the same source and files."
    )
