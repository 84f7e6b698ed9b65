"""What a build will read and write, decided before anything is read."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import pyarrow as pa

from vpt_data import __version__
from vpt_data import recipe as recipes
from vpt_data.dialogue.rule import RenderRule, render_rule
from vpt_data.images import identity
from vpt_data.images.folders import followed
from vpt_data.images.policy import Verify
from vpt_data.recipe import Recipe
from vpt_data.recipe.record import HOLDOUT
from vpt_data.sources import SOURCES, locate
from vpt_data.sources.base import Job
from vpt_data.sources.row_count import count_rows
from vpt_data.store import AnyPath
from vpt_data.take import Take, datasets_of, own_dataset
from vpt_data.upstream import catalog
from vpt_data.upstream.licenses import Policy
from vpt_data.upstream.rawfile import RawFile

#: A shard is expected to hold this many rows to twice as many: at two rows an image and 150 kB an image, 375 to 750 MB.
ROWS_PER_SHARD = 5_000

Mode = Literal["reference", "embed"]


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One file to read, or one window of it: its job, and the pool its records go to.

    keep  False where only its images matter, since it belongs to an excluded recipe
    rows  how many it has, of own data that are taken whole; else None
    """

    job: Job
    pool: str
    keep: bool
    rows: int | None = None

    @property
    def bytes(self) -> int:
        """How much there is to read."""
        window = self.job.rows.window
        return window.end - window.start if window else self.job.rows.path.stat().st_size

    @property
    def in_windows(self) -> bool:
        """Whether it is one window of a file."""
        return self.job.rows.window is not None

    @property
    def begins_file(self) -> bool:
        """Whether it is the first window of a file."""
        return self.job.rows.window is not None and self.job.rows.window.start == 0


@dataclass(slots=True)
class Plan:
    """Everything that fixes the corpus: recipe, inputs, mode, limit, shards per split."""

    recipe: Recipe
    excluded: list[Recipe]
    root: AnyPath
    mode: Mode
    limit: int | None
    verify: Verify = "markers"
    policy: Policy = "any"
    inputs: list[PlannedInput] = field(default_factory=list)
    pools: dict[str, str] = field(default_factory=dict)
    excluded_pools: list[dict[str, str]] = field(default_factory=list)
    missing: dict[str, list[locate.Missing]] = field(default_factory=dict)  # by take
    not_checked: list[str] = field(default_factory=list)
    second_copies: list[str] = field(default_factory=list)

    @property
    def shards(self) -> dict[str, int]:
        """How many shards each split gets: by the counts of its takes, and by the rows of own data taken whole."""
        expected = {str(take.split): 0 for take in self.recipe.take.values()}
        whole = set()
        for name, take in self.recipe.take.items():
            if isinstance(take.count, int):
                expected[str(take.split)] += take.count
            else:
                whole.add((str(take.split), self.pools.get(name)))
        for split, pool in whole:
            expected[split] += sum(given.rows or 0 for given in self.inputs if given.pool == pool)
        shards = {split: self.recipe.shards or shards_for(count) for split, count in expected.items()}
        if (share := self.recipe.holdout) is not None:
            shards[HOLDOUT] = power_of_two(share * (self.recipe.shards or shards_for(sum(expected.values()))))
        return shards

    @property
    def exclude_sha256(self) -> str | list[str] | None:
        """The sha256 of each excluded recipe, in the form in which the recipe names them."""
        digests = [each.digest() for each in self.excluded]
        return digests if isinstance(self.recipe.exclude, list) else next(iter(digests), None)

    @property
    def partitions(self) -> int:
        """How finely pass 1 groups its rows: every block of shards is a whole range of these."""
        return math.lcm(*(count // block_size(count) for count in self.shards.values()))

    def windowed(self) -> dict[int, list[RawFile]]:
        """The windows of each file that is read in windows, by the number of its first input."""
        found: dict[int, list[RawFile]] = {}
        first = 0
        for number, planned in enumerate(self.inputs):
            if planned.in_windows:
                first = number if planned.begins_file else first
                found.setdefault(first, []).append(planned.job.rows)
        return found

    def stamp(self) -> bytes:
        """What an interrupted build must agree on to be continued, as JSON."""
        raw_files = [raw_file for planned in self.inputs for raw_file in planned.job.files.values()]
        if (genome := identity.image_data(self.root)) is not None:
            raw_files.append(genome)
        files = [[file.name, file.path.stat().st_size, file.path.stat().st_mtime_ns] for file in raw_files]
        content = {
            "tool": __version__,
            "pyarrow": pa.__version__,
            "recipe": self.recipe.digest(),
            "exclude": self.exclude_sha256,
            "mode": self.mode,
            "limit": self.limit,
            "verify": self.verify,
            "policy": self.policy,
            "root": str(self.root.resolve()),
            "follow": followed(),
            "files": files,
        }
        return msgspec.json.encode(content)


def shards_for(rows: int) -> int:
    """The number of shards for so many expected rows: 1 below 5,000, else the power of two that gives 5,000 to 10,000.

    >>> [shards_for(rows) for rows in (0, 4_999, 5_000, 10_000, 828_763)]
    [1, 1, 1, 2, 128]
    """
    return power_of_two(rows / ROWS_PER_SHARD)


def power_of_two(number: float) -> int:
    """The greatest power of two up to a number, at least 1."""
    return 1 << max(0, int(number).bit_length() - 1)


def block_size(shards: int) -> int:
    """How many neighbouring shards are rendered together: a power of two up to 8 that divides `shards`.

    Enough that tables are not small, not more, so that memory does not grow with the corpus.

    >>> [block_size(shards) for shards in (1, 4, 128, 100, 102, 101)]
    [1, 1, 8, 4, 2, 1]
    """
    return next(size for size in (8, 4, 2, 1) if shards % size == 0 and (size == 1 or shards >= 8 * size))


def make(
    recipe: Recipe,
    root: AnyPath,
    mode: Mode,
    limit: int | None,
    verify: Verify = "markers",
    policy: Policy = "any",
) -> Plan:
    """Find the inputs of a recipe, and of the evaluation recipes it excludes, under a raw root.

    verify   how thoroughly images are looked at (images.policy.check); policy: which licenses are allowed
    """
    locate.check_root(root)
    excluded = [recipes.load(name) for name in recipe.excludes]
    plan = Plan(recipe, excluded, root, mode, limit, verify, policy)
    found: dict[tuple[str, str], list[PlannedInput]] = {}
    plan.pools = _add(plan, recipe, found)
    plan.excluded_pools = [_add(plan, each, found) for each in excluded]
    plan.inputs = [_counted(plan, part) for parts in found.values() for part in parts]
    return plan


def _counted(plan: Plan, given: PlannedInput) -> PlannedInput:
    """The input with its rows, where the number of shards depends on them."""
    takes = [take for name, take in plan.recipe.take.items() if plan.pools[name] == given.pool and take.count == "all"]
    if plan.recipe.shards is not None or not (given.keep and takes and SOURCES[given.job.source].own_files):
        return given
    rows = count_rows(given.job.rows, takes[0].columns.image)
    return replace(given, rows=rows if plan.limit is None else min(rows, plan.limit))


def _add(plan: Plan, recipe: Recipe, found: dict[tuple[str, str], list[PlannedInput]]) -> dict[str, str]:
    """Find the inputs of one recipe; gives the pool of each take."""
    main = recipe is plan.recipe
    pools: dict[str, str] = {}
    for name, take in recipe.take.items():
        pools[name] = _pool(take)
        here = files_of(plan.root, name, take, plan.limit)
        for job in here.jobs:
            key = (pools[name], job.rows.name)
            if key not in found:
                found[key] = [PlannedInput(part, pools[name], main) for part in _windows(job)]
        plan.second_copies.extend(copy for copy in here.second_copies if copy not in plan.second_copies)
        if main and here.missing:
            plan.missing[name] = here.missing
        elif here.missing:
            plan.not_checked.extend(f"{name} ({gap.places[0]})" for gap in here.missing)
    return pools


def files_of(root: AnyPath, name: str, take: Take, limit: int | None = None) -> locate.FoundFiles:
    """The files of a take under a raw root."""
    if SOURCES[take.source].own_files:
        return locate.own_files(root, name, take, limit)
    return locate.find(root, take.source, datasets_of(take), limit)


def _windows(job: Job) -> list[Job]:
    """The job, or one for each window of a large file that can be read in windows."""
    if job.limit is not None or not SOURCES[job.source].splittable:
        return [job]
    return [replace(job, files={**job.files, "rows": window}) for window in job.rows.windows()]


def _pool(take: Take) -> str:
    """Takes of one pool see the same records; own files are one pool where they are read the same way."""
    if not SOURCES[take.source].own_files:
        return take.source
    boxes = (take.box_format, take.box_units, take.box_frame, take.check_boxes)
    reading = (own_dataset(take), take.files, take.instances, take.images, take.columns, boxes)
    return f"{take.source}:{hashlib.sha256(msgspec.json.encode(reading)).hexdigest()[:12]}"


def render_rules(recipe: Recipe) -> list[RenderRule]:
    """The render rule of each take, in the order of the recipe."""
    return [_render_rule(name, take) for name, take in recipe.take.items()]


def _render_rule(name: str, take: Take) -> RenderRule:
    rule = render_rule(name, take, SOURCES[take.source].conversations)
    upstream = catalog.upstreams().source.get(take.source)
    if upstream is None:
        return rule
    return replace(rule, license=take.license or upstream.license, language=take.language or upstream.language)


def rescaling(recipe: Recipe) -> frozenset[str]:
    """The takes whose images may be resized copies."""
    return frozenset(name for name, take in recipe.take.items() if take.rescale)


def splits(recipe: Recipe) -> dict[str, list[int]]:
    """The takes (by number) that have rows in each split."""
    found: dict[str, list[int]] = {}
    for number, take in enumerate(recipe.take.values()):
        found.setdefault(str(take.split), []).append(number)
    if recipe.holdout is not None:
        found[HOLDOUT] = [number for number, take in enumerate(recipe.take.values()) if take.expected is None]
    return found
