"""Whenever a process that asks is killed, the next ones make the same of it: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_runs import command, records, results
from helpers.mortal import VANISHED, Life, Mortal
from helpers.soak import SOAK

ARMS = ("", "crop=random", "control=swap")
ROWS = 4
#: Moments amid the model's own answers, in its results, and amid those of an intervention.
SOME = (14, 22, 30)


class Victims:
    """The same evaluation again and again, in processes that can be killed."""

    def __init__(self, run: Path, corpus: Path, folder: Path) -> None:
        here = Path(__file__).parent
        path = [str(here), str(here.parents[1]), str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        self.mortal = Mortal(folder, ["looking"], env, "trainer.evaluate", "looking:prepare")
        self.asked = run, corpus

    def live(self, out: Path, moment: int = -1) -> Life:
        arms = [word for arm in ARMS[1:] for word in ("--intervene", arm)]
        line = command(*self.asked, out, *arms, "--max-new-tokens", "12", "--batch", "2", rows=ROWS)
        return self.mortal.run(line, out, moment)


@pytest.fixture(scope="module")
def victims(run: Path, embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    made = Victims(run, embedded, tmp_path_factory.mktemp("victims"))
    yield made
    made.mortal.end()


def test_killed_at_random_moments_it_ends_with_the_same_records(victims: Victims, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    undisturbed = victims.live(whole)
    assert undisturbed.code == 0, undisturbed.output
    deaths, dice = 0, random.Random(0)
    while deaths < (10 if SOAK else len(SOME)):
        life = victims.live(out, dice.randrange(undisturbed.moments) if SOAK else SOME[deaths])
        assert life.code in (0, VANISHED), life.output
        deaths += life.code == VANISHED
        if life.code == 0:
            shutil.rmtree(out)
    last = victims.live(out)
    assert last.code == 0, last.output
    for arm in ARMS:
        assert records(out / arm) == records(whole / arm)
        ids = [json.loads(line)["id"] for line in (out / arm / "answers.jsonl").read_bytes().splitlines()]
        assert len(ids) == len(set(ids)) == len(records(whole))
    assert results(out)["interventions"] == results(whole)["interventions"]
