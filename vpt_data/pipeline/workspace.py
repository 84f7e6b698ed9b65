"""A build in progress: what its tasks need to know, and where under OUT/.work their results are.

Every task is a pure function of a `Work` and a number, and leaves its result in files, the last of which says that it
is done. So any process on any machine may run it, and run it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vpt_data.pipeline.plan import Plan
from vpt_data.pipeline.prepared import PreparedFiles
from vpt_data.recipe import Recipe
from vpt_data.store import AnyPath


class RunId(NamedTuple):
    """Which build a process works for: the folder, and when the build was started there."""

    out: AnyPath
    started: int


@dataclass(frozen=True, slots=True)
class Work:
    """A planned build, as its tasks see it."""

    plan: Plan
    run: RunId

    @property
    def out(self) -> AnyPath:
        """The output folder."""
        return self.run.out

    @property
    def recipe(self) -> Recipe:
        """The recipe of the build."""
        return self.plan.recipe

    @property
    def folder(self) -> AnyPath:
        """The folder of work in progress."""
        return self.out / ".work"

    def prepared(self, number: int) -> PreparedFiles:
        """The files of an input after pass 1."""
        return PreparedFiles(self.folder / "inputs" / f"{number:05d}")

    def quota(self, name: str) -> AnyPath:
        """A file of the stage that settles the quotas."""
        return self.folder / "quotas" / name

    def part(self, partition: int, kind: str) -> AnyPath:
        """A file of a decided partition: `picks`, `drops`, or `json`, which is written last."""
        return self.folder / "parts" / f"{partition:05d}.{kind}"

    def shard(self, name: str, kind: str) -> AnyPath:
        """A file beside a finished shard: its `arrow` side table, or `json`, which is written last."""
        return self.folder / "shards" / f"{name}.{kind}"


def make_folders(work: Work) -> None:
    """The folders that tasks write to."""
    for name in ("inputs", "quotas", "parts", "shards"):
        (work.folder / name).mkdir(parents=True, exist_ok=True)
    (work.out / "data").mkdir(parents=True, exist_ok=True)
