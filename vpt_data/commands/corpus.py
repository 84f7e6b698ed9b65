"""`vpt-data render`, `check` and `stats`: what can be done with a corpus."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from vpt_data.commands import json_option, show_manifest


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--encoder", type=click.Choice(["dino", "sam", "clip"]), required=True, help="Where its looks go.")
@click.option("--prompted/--free-choice", default=None, help="With or without the sentence that asks for the look.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@json_option
def render(corpus: Path, encoder: str, prompted: bool | None, out: Path, as_json: bool) -> None:
    """Write the same rows for another encoder, or prompted / free choice."""
    from vpt_data.rerender import rerender

    show_manifest(rerender(corpus, out, encoder, prompted), out, as_json, already=False)


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def check(target: Path, as_json: bool) -> None:
    """Verify a corpus (hashes, counts, row rules), or lint a published VPT JSON file."""
    from vpt_data import check as checks

    report = checks.check(target)
    click.echo(json.dumps(report.as_dict()) if as_json else report.text())
    if report.findings:
        sys.exit(3)


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@json_option
def stats(corpus: Path, as_json: bool) -> None:
    """Counts, box sizes, cells and text lengths of a corpus."""
    from vpt_data import stats as statistics

    found = statistics.stats(corpus)
    click.echo(json.dumps(found) if as_json else statistics.text(found))
