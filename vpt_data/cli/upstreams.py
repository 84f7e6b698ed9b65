"""`vpt-data sample`, `sources` and `recipes`: what a build starts from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vpt_data.cli.common import RAW, follow_links_option, json_option, raw_root_if_any
from vpt_data.cli.output import Bar
from vpt_data.errors import UsageError


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--rows", type=click.IntRange(1), default=2000, show_default=True, help="Training rows of the mix.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed is another world.")
@json_option
def sample(out: Path, rows: int, seed: int, as_json: bool) -> None:
    """Make a synthetic raw root: every upstream in its owner's layout, with rendered images."""
    from vpt_data.report import table
    from vpt_data.synthetic import write_sample

    with Bar("rendering") as bar:
        counts = write_sample(out, rows=rows, seed=seed, progress=bar)
    if as_json:
        click.echo(json.dumps({"out": str(out), "rows": counts}))
        return
    click.echo(table(("file", "rows"), [(file, f"{count:,}") for file, count in counts.items()]))
    click.echo(f"\nMade: {out}")


@click.command()
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


@click.command()
@click.option("--raw", help=f"Also report what of it is there. {RAW}")
@follow_links_option
@click.option("--sizes/--no-sizes", default=True, show_default=True, help="Compare image sizes with what rows say.")
@json_option
def sources(raw: str | None, sizes: bool, as_json: bool) -> None:
    """What each upstream is, its licence, where to get it, and what of it is there."""
    from vpt_data.inspect import raw_files

    root = raw_root_if_any(raw)
    if not (root is None or isinstance(root, Path)):
        raise UsageError(f"--raw {raw}: `sources` looks into a folder on a disk; give --raw DIR.")
    with Bar("images") as bar:
        found = raw_files.sources(root, sizes, bar)
    click.echo(json.dumps(found.as_dict()) if as_json else raw_files.text(found))
