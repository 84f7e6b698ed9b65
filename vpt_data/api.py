"""What Python programs use: a recipe, a plan, a build, a corpus, the pixels of a view. See docs/python.md.

These names are also those of the package (`vpt_data.build`, ...), which imports them when they are first used. Nothing
else of the package is promised to stay where it is.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from vpt_data import recipe as recipes
from vpt_data import store
from vpt_data.corpus.reader import Corpus, open_corpus
from vpt_data.errors import CorpusError
from vpt_data.images.policy import Verify
from vpt_data.images.views import pixels
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan as plans
from vpt_data.pipeline import sealing
from vpt_data.pipeline.engines.start import start_engine
from vpt_data.pipeline.plan import Mode, Plan
from vpt_data.recipe import Recipe
from vpt_data.schema import SAMPLE as SCHEMA
from vpt_data.store import AnyPath
from vpt_data.synthetic import write_sample
from vpt_data.upstream.licenses import Policy

__all__ = ["SCHEMA", "build", "load_recipe", "open_corpus", "pixels", "plan"]


def load_recipe(name: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Recipe:
    """A shipped recipe by its name, or the recipe in a `.toml` file, with everything resolved.

    overrides   "KEY=VALUE" as `--set` takes them, for instance "take.gqa.count=1000"

    Raises UsageError, which names the key, for a recipe that is not there or says what cannot be.
    """
    return recipes.load(os.fspath(name), overrides)


def plan(
    recipe: Recipe,
    raw: str | AnyPath,
    *,
    images: Mode = "reference",
    limit: int | None = None,
    verify_images: Verify = "markers",
    license_policy: Policy = "any",
) -> Plan:
    """What a build of the recipe would read (`inputs`), what is not there (`missing`), and how many shards it writes.

    raw             the raw root: a folder, a URL such as s3://BUCKET/PREFIX, or "sample" for the synthetic one
    images          "reference" names the images, "embed" puts their bytes into the shards
    limit           read the first records of each file only; such a corpus is marked as limited
    verify_images   with "embed": look for the end of each image file ("markers"), or decode all of it ("full")
    license_policy  "any", "research" or "commercial": leave out what may not be used that way

    Raises RawError where there is no raw root. Nothing is read yet.
    """
    root = sample_root() if raw == "sample" else _place(raw)
    return plans.make(recipe, root, images, limit, verify_images, license_policy)


def build(plan: Plan, out: str | AnyPath, *, workers: int = 1, strict: bool = False, fresh: bool = False) -> Corpus:
    """Build the corpus of a plan in the folder `out`, or continue or confirm one that is there, and open it.

    workers   processes; a script that asks for more than one needs `if __name__ == "__main__":` around the call
    strict    raise CorpusError where a file is missing or more records are dropped than the recipe tolerates; without,
              each of these findings is a warning (UserWarning)
    fresh     replace what is in `out`

    Raises CorpusError for a corpus without a row, OutputError where `out` holds something else, RawError for a raw
    file that cannot be read. An interrupted build is continued by the same call.
    """
    where = _place(out)
    start = functools.partial(start_engine, "local", workers, None, pipeline.TASK_MODULES)
    result = pipeline.build(plan, where, start, strict, fresh)
    assert result is not None, "only ranks leave the end of a build to others"
    if strict and result.findings:
        wrong = "; ".join(result.findings)
        raise CorpusError(f"{where}: {wrong}; the shards stay, and a build that is not strict ends it.")
    if not any(split.rows for split in result.manifest.splits.values()):
        raise CorpusError(f"{where}: the corpus has no rows; see dropped.parquet there for the reasons.")
    for finding in (*result.manifest.image_problems, *sealing.warnings(result.manifest), *result.findings):
        warnings.warn(f"{where}: {finding}.", stacklevel=2)
    return open_corpus(where)


def sample_root(progress: Callable[[int, int], None] | None = None) -> Path:
    """The synthetic raw root in the cache folder, made on first use; `progress(done, total)` counts its images."""
    cache = store.cache() / "sample-raw"
    write_sample(cache, progress=progress)
    return cache


def _place(given: str | AnyPath) -> AnyPath:
    return store.at(given) if isinstance(given, str) else given
