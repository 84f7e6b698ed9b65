"""The command line. Results go to stdout, progress and messages to stderr; heavy modules are imported where used."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vpt_data import __version__
from vpt_data.errors import RawError, UsageError, VptDataError

if TYPE_CHECKING:
    from vpt_data.manifest import Manifest
    from vpt_data.plan import Plan

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


class _Group(click.Group):
    """Turns every expected error into one sentence and the exit code that goes with it."""

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except VptDataError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("Interrupted; run the same command again to go on.", 130)
        except BrokenPipeError:
            # The reader of our output has gone (`| head`); that is its decision, not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            _fail(_os_sentence(error), 1)


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"Error: {sentence}", err=True)
    sys.exit(code)


def _os_sentence(error: OSError) -> str:
    if error.errno == errno.ENOSPC or "No space left" in str(error):
        return "The disk is full; free some space and run the same command again, finished parts are kept."
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}."


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vpt-data")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Build, check and publish training data for Visual Perception Tokens."""


@main.command()
@click.option("--recipe", "name", required=True, help="A shipped recipe (`vpt-data recipes`) or a .toml file.")
@click.option("--raw", help="Raw root; default: $VPT_DATA_RAW, else ./raw. `sample`: a synthetic one.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: ./corpora/RECIPE.")
@click.option(
    "--images", "mode", type=click.Choice(["reference", "embed"]), default="reference", show_default=True,
    help="Name the images, or put their bytes into the shards.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Read the first N records of each input file only.")
@click.option("--workers", type=click.IntRange(1), default=None, help="Processes; default: one per CPU.")
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True, help="What runs the work.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value.")
@click.option("--strict", is_flag=True, help="Fail when more records are dropped than the recipe tolerates.")
@click.option("--fresh", is_flag=True, help="Replace the corpus in --out.")
@click.option("--dry-run", is_flag=True, help="Say what would be read, and stop.")
@json_option
def build(
    name: str, raw: str | None, out: Path | None, mode: str, limit: int | None, workers: int | None, engine: str,
    overrides: tuple[str, ...], strict: bool, fresh: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn raw annotations into a corpus of Parquet shards."""
    from vpt_data.engine import keep_memory

    keep_memory()
    from vpt_data import build as pipeline
    from vpt_data import plan
    from vpt_data import recipe as recipes

    recipe = recipes.load(name, overrides)
    planned = plan.make(recipe, _raw_root(raw), "embed" if mode == "embed" else "reference", limit)
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
    out = out or Path("corpora") / recipe.name
    result = pipeline.build(planned, out, workers or os.cpu_count() or 1, strict, fresh)
    _show_manifest(result.manifest, out, as_json, result.already)
    for finding in result.findings:
        click.echo(f"{'Error' if strict else 'Warning'}: {finding}.", err=True)
    if strict and result.findings:
        if result.already:
            _fail(f"{out}: --strict found the above in the corpus that is there.", 1)
        _fail(
            f"{out}: --strict found the above, so no manifest was written; the shards stay, and the same command "
            "without --strict completes the corpus.",
            1,
        )
    if not any(split.rows for split in result.manifest.splits.values()):
        _fail(f"{out}: the corpus has no rows; see dropped.parquet there for the reasons.", 1)


def _raw_root(given: str | None) -> Path:
    if given == "sample":
        return _sample_root()
    root = Path(given or os.environ.get("VPT_DATA_RAW") or "raw")
    if not root.exists() and given is None and "VPT_DATA_RAW" not in os.environ:
        raise UsageError(
            "No raw root: ./raw is not there and VPT_DATA_RAW is not set; give --raw DIR, or --raw sample to try the "
            "synthetic one, or see `vpt-data sources` for where the upstreams are to be had."
        )
    return root


def _sample_root() -> Path:
    """The sample raw root in the cache folder, made on first use."""
    from vpt_data.sample import write_sample

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpt-data" / "sample-raw"
    with _Bar("making the sample raw root") as bar:
        write_sample(cache, progress=bar)
    return cache


class _Bar:
    """A progress callback `(done, total)` behind a bar that is quiet where stderr is no terminal."""

    def __init__(self, label: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(desc=label, disable=None)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _update(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


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


def _show_manifest(made: Manifest, out: Path, as_json: bool, already: bool) -> None:
    from vpt_data import manifest
    from vpt_data.report import table

    if as_json:
        click.echo(manifest.dump(made), nl=False)
        return
    header = ("take", "expected", "read", "repaired", "dropped", "kept")
    rows: list[tuple[str, ...]] = [
        (
            part.take,
            f"{part.expected:,}" if part.expected else "all",
            f"{part.read:,}",
            _counts(part.repaired),
            _counts(part.dropped),
            f"{part.kept:,}",
        )
        for part in made.components
    ]
    click.echo(table(header, rows))
    total = sum(split.rows for split in made.splits.values())
    shards = sum(len(split.shards) for split in made.splits.values())
    click.echo(f"\n{'Already built' if already else 'Built'}: {out}  {total:,} rows in {shards} shards")
    images = made.images
    click.echo(
        f"images: {images.distinct:,} distinct, {images.embedded:,} embedded, {images.missing:,} not under the raw root"
    )
    for gap in made.missing:
        click.echo(f"missing: {gap}")
    if made.limited:
        click.echo("limited: made with --limit, not for publication")
    click.echo(f"fingerprint: {made.fingerprint}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"


@main.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True, help="Training rows of the mix.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed is another world.")
@json_option
def sample(out: Path, rows: int, seed: int, as_json: bool) -> None:
    """Make a synthetic raw root: every upstream in its owner's layout, with rendered images."""
    from vpt_data.report import table
    from vpt_data.sample import write_sample

    with _Bar("rendering") as bar:
        counts = write_sample(out, rows=rows, seed=seed, progress=bar)
    if as_json:
        click.echo(json.dumps({"out": str(out), "rows": counts}))
        return
    click.echo(table(("file", "rows"), [(file, f"{count:,}") for file, count in counts.items()]))
    click.echo(f"\nMade: {out}")


@main.command()
@click.argument("name", required=False)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe value.")
@json_option
def recipes(name: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the shipped recipes, or show one with everything resolved."""
    import msgspec

    from vpt_data import recipe as library
    from vpt_data.report import table

    if name is not None:
        loaded = library.load(name, overrides)
        content = msgspec.to_builtins(loaded)
        click.echo(json.dumps(content) if as_json else library.as_toml(loaded), nl=as_json)
        return
    listed = {each: library.describe(each) for each in library.names()}
    click.echo(json.dumps(listed) if as_json else table(("recipe", "what it is"), list(listed.items())))


@main.command()
@click.option("--raw", type=click.Path(path_type=Path), help="Also say what of it is under this raw root.")
@json_option
def sources(raw: Path | None, as_json: bool) -> None:
    """What each upstream is, its licence, where to get it, and what of it is there."""
    from vpt_data import coverage

    found = coverage.sources(raw)
    click.echo(json.dumps(found) if as_json else coverage.text(found))


@main.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--encoder", type=click.Choice(["dino", "sam", "clip"]), required=True, help="Where its looks go.")
@click.option("--prompted/--free-choice", default=None, help="With or without the sentence that asks for the look.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@json_option
def render(corpus: Path, encoder: str, prompted: bool | None, out: Path, as_json: bool) -> None:
    """Write the same rows for another encoder, or prompted / free choice."""
    from vpt_data.rerender import rerender

    _show_manifest(rerender(corpus, out, encoder, prompted), out, as_json, already=False)


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def check(target: Path, as_json: bool) -> None:
    """Verify a corpus (hashes, counts, row rules), or lint a published VPT JSON file."""
    from vpt_data import check as checks

    report = checks.check(target)
    click.echo(json.dumps(report.as_dict()) if as_json else report.text())
    if report.findings:
        sys.exit(3)


@main.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@json_option
def stats(corpus: Path, as_json: bool) -> None:
    """Counts, box sizes, cells and text lengths of a corpus."""
    from vpt_data import stats as statistics

    found = statistics.stats(corpus)
    click.echo(json.dumps(found) if as_json else statistics.text(found))


if __name__ == "__main__":
    main(prog_name="vpt-data")
