"""`vpt-data download`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vpt_data.cli.common import fail, json_option
from vpt_data.cli.output import Bar
from vpt_data.errors import UsageError

if TYPE_CHECKING:
    from vpt_data.upstream.download.entries import Group
    from vpt_data.upstream.download.http import Progress
    from vpt_data.upstream.download.session import Outcome, Session


@click.command()
@click.argument("names", metavar="SOURCE...", nargs=-1)
@click.option("--raw", help="Raw root, made if need be; default: $VPT_DATA_RAW, else ./raw.")
@click.option(
    "--accept-license", "accept", multiple=True, metavar="SOURCE", help="You have read its terms; repeatable."
)
@click.option(
    "--manifest", type=click.Path(path_type=Path), help="Own TOML file of downloads, in place of the shipped."
)
@click.option(
    "--private-host", "private", multiple=True, metavar="HOST", help="A mirror in your own network; repeatable."
)
@click.option("--verify", is_flag=True, help="Hash what is there and compare; fetch nothing.")
@click.option(
    "--dry-run", is_flag=True, help="List files, sizes and licences (of all sources without SOURCE), and stop."
)
@json_option
def download(
    names: tuple[str, ...], raw: str | None, accept: tuple[str, ...], manifest: Path | None,
    private: tuple[str, ...], verify: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fetch upstream files from their owners into a raw root, checked."""
    from vpt_data.upstream.download import entries, lockfile, session

    if not names and not dry_run:
        known = ", ".join(group.name for group in entries.groups((), manifest))
        raise UsageError(f"Name what to download; known: {known}.")
    groups = entries.groups(names, manifest)
    root = _root(raw)
    wrong = [name for name in accept if name not in {group.name for group in groups}]
    if wrong:
        raise UsageError(f"--accept-license {wrong[0]}: not among the sources to download; name it there as well.")
    bars = _Bars()
    current = session.Session(
        root, lockfile.Book(root), private=frozenset(host.lower() for host in private),
        say=lambda note: click.echo(f"Note: {note}", err=True), bar=bars.of,
    )  # fmt: skip
    with bars:
        if dry_run or verify:
            done = {group.name: (session.plan if dry_run else session.verify)(current, group) for group in groups}
        else:
            done = _download(current, groups, accept)
    _show(current, groups, done, as_json)
    _say_what_is_left(root, groups, done, verify=verify, dry_run=dry_run)


def _root(raw: str | None) -> Path:
    given = raw or os.environ.get("VPT_DATA_RAW") or "raw"
    if "://" in given or given == "sample":
        raise UsageError(f"--raw {given}: download writes to a folder on a disk; give --raw DIR.")
    root = Path(given)
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root}: the raw root is a file; expected a folder, or the name of one to make.")
    return root


def _download(current: Session, groups: list[Group], accept: tuple[str, ...]) -> dict[str, list[Outcome]]:
    from vpt_data.upstream.download import hub, lockfile, session

    session.check_licences(current.root, [group for group in groups if group.name not in accept])
    if any(wanted.hub for group in groups for wanted in group.files) and hub.endpoint() != "https://huggingface.co":
        current.say(f"HF_ENDPOINT is {hub.endpoint()}; it is asked instead of the Hub, and gets your token if any.")
    with lockfile.alone(current.root):
        for group in groups:
            if group.name in accept:
                lockfile.accept(current.root, group)
        return {group.name: session.download(current, group) for group in groups}


class _Bars:
    """One bar a file, closed when the next begins."""

    def __init__(self) -> None:
        self._open: Bar | None = None

    def of(self, path: str) -> Progress:
        self.__exit__()
        self._open = Bar(path, in_bytes=True)
        return self._open.__enter__()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.__exit__()
            self._open = None


def _show(session: Session, groups: list[Group], done: dict[str, list[Outcome]], as_json: bool) -> None:
    from vpt_data.report import table
    from vpt_data.upstream.download.lockfile import accepted, has_accepted

    if as_json:
        known = accepted(session.root)
        content: dict[str, Any] = {
            group.name: {
                "license": group.license,
                "page": group.page,
                "accepted": has_accepted(known, group),
                "files": [dataclasses.asdict(outcome) for outcome in done[group.name]],
            }
            for group in groups
        }
        click.echo(json.dumps({"raw": str(session.root), "sources": content}))
        return
    for group in groups:
        click.echo(f"{group.name}: {group.title}\n  licence: {group.license}, {group.page}")
        rows = [(each.path, each.state, _size(each), each.checked or "-", each.note) for each in done[group.name]]
        lines = table(("file", "state", "bytes", "checked against", ""), rows).splitlines()
        click.echo("\n".join(f"  {line}".rstrip() for line in lines) + "\n")


def _size(outcome: Outcome) -> str:
    return "?" if outcome.size is None else f"{outcome.size:,}"


def _say_what_is_left(
    root: Path, groups: list[Group], done: dict[str, list[Outcome]], *, verify: bool, dry_run: bool
) -> None:
    """Exit code 1 where a file was lost, or still has to be fetched by hand."""
    gone = [outcome for outcomes in done.values() for outcome in outcomes if outcome.state == "gone"]
    if gone:
        fail(f"{root / gone[0].path}: was recorded and is no longer there ({len(gone)} such); download it again.", 1)
    for group in groups:
        left = [outcome.path for outcome in done[group.name] if outcome.state == "by hand"]
        if left and not (verify or dry_run):
            where = ", ".join(str(root / path) for path in left)
            fail(
                f"{group.name} has to be fetched by hand: see {group.landing}, put the files at {where}, and run the "
                "same command again to have them checked.",
                1,
            )
