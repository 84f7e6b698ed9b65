"""`vpt-data build`."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import click

from vpt_data.cli.common import RAW, fail, follow_links_option, json_option, raw_root
from vpt_data.cli.output import show_manifest
from vpt_data.errors import RawError, UsageError

if TYPE_CHECKING:
    from vpt_data.corpus.manifest import Manifest
    from vpt_data.images.policy import Verify
    from vpt_data.pipeline.build import Result
    from vpt_data.pipeline.plan import Plan
    from vpt_data.store import AnyPath
    from vpt_data.upstream.licenses import Policy


@click.command()
@click.option("--recipe", "name", required=True, help="A shipped recipe (`vpt-data recipes`) or a .toml file.")
@click.option("--raw", help=RAW)
@follow_links_option
@click.option("--out", "place", help="Folder, or s3://BUCKET/PREFIX; default: ./corpora/RECIPE.")
@click.option(
    "--images", "mode", type=click.Choice(["reference", "embed"]), default="reference", show_default=True,
    help="Name the images, or put their bytes into the shards.",
)  # fmt: skip
@click.option(
    "--verify-images", "verify", type=click.Choice(["markers", "full"]), default="markers", show_default=True,
    help="With embed: look for the end of each image file, or decode all of it.",
)  # fmt: skip
@click.option(
    "--license-policy", "policy", type=click.Choice(["any", "research", "commercial"]), default="any",
    show_default=True, help="Leave out annotations and images whose licence does not allow that use.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Read the first N records of each input file only.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per CPU.")
@click.option(
    "--engine", type=click.Choice(["local", "ranks", "ray"]), default="local", show_default=True,
    help="What runs the work: processes here, RANK of WORLD_SIZE (or a Slurm array), Ray.",
)  # fmt: skip
@click.option("--address", help="The Ray cluster to use; default: one is started here.")
@click.option("--seal", is_flag=True, help="After all ranks: account for their shards and write the manifest.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value.")
@click.option("--retry-dropped", "retry", is_flag=True, help="Try rows again whose image was missing or broken.")
@click.option("--strict", is_flag=True, help="Fail when more records are dropped than the recipe tolerates.")
@click.option("--fresh", is_flag=True, help="Replace the corpus in --out.")
@click.option("--dry-run", is_flag=True, help="Say what would be read, and stop.")
@json_option
def build(
    name: str, raw: str | None, place: str | None, mode: str, verify: Verify, policy: Policy,
    limit: int | None, workers: int | None, engine: str,
    address: str | None, seal: bool, overrides: tuple[str, ...], retry: bool, strict: bool, fresh: bool, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Turn raw annotations into a corpus of Parquet shards."""
    from vpt_data import keep_memory

    keep_memory()
    from vpt_data import recipe as recipes
    from vpt_data import store
    from vpt_data.pipeline import build as pipeline
    from vpt_data.pipeline import plan
    from vpt_data.pipeline.engines.ranks import rank_of
    from vpt_data.pipeline.engines.start import start_engine

    if seal and fresh:
        raise UsageError("--seal accounts for shards that are there, and --fresh would remove them; give one of them.")
    if engine == "ranks" and (fresh or retry):
        raise UsageError(
            "--fresh and --retry-dropped are for one process: each rank would undo what the others did; "
            "use --engine local, or remove the folder before the ranks start."
        )
    if engine == "ranks" and not (seal or dry_run):
        rank_of(os.environ)  # a rank without a name must not leave a folder behind
    recipe = recipes.load(name, overrides)
    planned = plan.make(recipe, raw_root(raw), "embed" if mode == "embed" else "reference", limit, verify, policy)
    for copy in planned.second_copies:
        click.echo(f"Note: {copy} is a second copy and was not read.", err=True)
    if dry_run:
        _show_plan(planned, as_json)
        return
    if not planned.inputs:
        first = next(iter(planned.missing.values()))[0]
        raise RawError(
            f"{planned.root}: none of the files of recipe {recipe.name} are there, for instance {first.places[0]}; "
            "check --raw, and see `vpt-data sources` for where each upstream belongs."
        )
    out = store.at(place or f"corpora/{recipe.name}")
    if seal:
        result: pipeline.Result | None = pipeline.seal(planned, out, strict)
    else:
        width = workers or (1 if engine == "ranks" else os.cpu_count() or 1)
        chosen = functools.partial(start_engine, engine, width, address, pipeline.TASK_MODULES)
        if retry:
            result = pipeline.retry(planned, out, chosen, strict)
        else:
            result = pipeline.build(planned, out, chosen, strict, fresh, together=engine == "ranks")
    if result is None:
        click.echo(f"Shards written: {out}  (this rank's share; `vpt-data build --seal` with the same options ends it)")
        return
    _show_result(result, out, strict, as_json)


def _show_result(result: Result, out: AnyPath, strict: bool, as_json: bool) -> None:
    from vpt_data.pipeline import sealing

    empty = not any(split.rows for split in result.manifest.splits.values())
    word = "Already built" if result.already else "Not finished" if empty or (strict and result.findings) else "Built"
    show_manifest(result.manifest, out, as_json, word)
    if not as_json:
        _show_drops(result.manifest, out)
    for note in result.manifest.image_problems:
        click.echo(f"Note: {note}.", err=True)
    for warning in sealing.warnings(result.manifest):
        click.echo(f"Warning: {warning}.", err=True)
    for finding in result.findings:
        click.echo(f"{'Error' if strict else 'Warning'}: {finding}.", err=True)
    if strict and result.findings:
        if result.already:
            fail(f"{out}: --strict found the above in the corpus that is there.", 1)
        fail(
            f"{out}: --strict found the above, so no manifest was written; the shards stay, and the same command "
            "without --strict completes the corpus.",
            1,
        )
    if empty:
        fail(f"{out}: the corpus has no rows; {_why_empty(result.manifest)}.", 1)


def _why_empty(made: Manifest) -> str:
    """Why a corpus has no rows, and what to do, as the end of a sentence."""
    from vpt_data.schema import Reason

    reasons = {reason for part in made.components for reason in part.dropped}
    if not any(part.read for part in made.components):
        return "no input file has a record"
    if reasons == {Reason.MISSING_IMAGE}:
        return "none of the images is under the raw root; correct --raw, or `images` of the take for own data"
    return "see dropped.parquet there for the reasons"


def _show_drops(made: Manifest, out: AnyPath) -> None:
    """The first record of each kind that was dropped for what it is, and not by a rule of the recipe."""
    from vpt_data.inspect import drops
    from vpt_data.pipeline.sealing import PLANNED

    counts = Counter[str]()
    for part in made.components:
        counts.update({reason: n for reason, n in part.dropped.items() if reason not in PLANNED})
    for drop in drops.first_of_each(out, counts):
        first = "" if counts[drop.reason] == 1 else ", the first"
        click.echo(f"dropped: {drop.reason} {counts[drop.reason]:,}{first}: {drop.text()}")
    if counts:
        click.echo(f"dropped: `vpt-data drops {out}` lists all of them")


def _show_plan(planned: Plan, as_json: bool) -> None:
    files = [raw.name for it in planned.inputs for raw in it.job.files.values()]
    gaps = {take: [gap.places[0] for gap in missing] for take, missing in planned.missing.items()}
    if as_json:
        content = {
            "read": files,
            "missing": gaps,
            "not_checked": planned.not_checked,
            "shards": planned.shards,
        }
        click.echo(json.dumps(content))
        return
    for file in files:
        click.echo(f"read     {file}")
    for take, places in gaps.items():
        click.echo(f"missing  {places[0]} (take {take})")
    for split, count in planned.shards.items():
        click.echo(f"write    {split}: {count} shard{'s' if count > 1 else ''}")
