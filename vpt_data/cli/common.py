"""What the commands share: options, the raw root, how they end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vpt_data.cli.output import Bar
from vpt_data.errors import UsageError
from vpt_data.report import visible_line

if TYPE_CHECKING:
    from vpt_data.store import AnyPath

#: The help of `--raw` in every command that reads a raw root.
RAW = "Raw root; default: $VPT_DATA_RAW, else ./raw. `sample`: a synthetic one."
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")


def _follow(context: click.Context, _: click.Parameter, folders: tuple[str, ...]) -> None:
    """Let links lead into these folders while the command runs, in this process and in those it starts."""
    before = os.environ.get("VPT_DATA_FOLLOW_LINKS")
    if not folders:
        return
    if wrong := [folder for folder in folders if not Path(folder).is_dir()]:
        raise UsageError(f"--follow-links {wrong[0]}: there is no such folder; name one that links may lead into.")

    def restore() -> None:
        if before is None:
            del os.environ["VPT_DATA_FOLLOW_LINKS"]
        else:
            os.environ["VPT_DATA_FOLLOW_LINKS"] = before

    os.environ["VPT_DATA_FOLLOW_LINKS"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders)
    context.call_on_close(restore)


follow_links_option = click.option(
    "--follow-links",
    multiple=True,
    metavar="DIR",
    type=click.Path(),
    envvar="VPT_DATA_FOLLOW_LINKS",
    expose_value=False,
    callback=_follow,
    help="A folder outside the raw root that links to images may lead into; can be repeated. "
    "Default: $VPT_DATA_FOLLOW_LINKS, folders separated as in $PATH.",
)


def place(text: str) -> AnyPath:
    """The type of options and arguments that name a folder or file, on a disk or in an object store."""
    from vpt_data import store

    return store.at(text)


def corpora_here() -> list[Path]:
    """The finished corpora under ./corpora, where a build without --out puts them, sorted by name."""
    return sorted(file.parent for file in Path("corpora").glob("*/manifest.json"))


def the_corpus(given: AnyPath | None) -> AnyPath:
    """The corpus that a command was given, or the only finished one under ./corpora."""
    if given is not None:
        return given
    found = corpora_here()
    if not found:
        raise UsageError(
            "No corpus: there is no finished one under ./corpora; name the folder of one, or make one with "
            "`vpt-data build --recipe NAME`."
        )
    if len(found) > 1:
        raise UsageError(f"Several corpora are under ./corpora: {', '.join(map(str, found))}; name one of them.")
    return found[0]


def fail(sentence: str, code: int) -> NoReturn:
    """End with one sentence on stderr and an exit code; no token of the Hub is in it."""
    if "huggingface_hub" in sys.modules:
        from vpt_data.exchange.hub.answers import redacted

        sentence = redacted(sentence)
    # What a library says in the middle of it may hold line breaks: pyarrow's words on a damaged file do.
    click.echo(f"Error: {visible_line(sentence)}", err=True)
    sys.exit(code)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM (`kill`, a scheduler, `docker stop`) raises KeyboardInterrupt as Ctrl-C does.

    Once only: a scheduler signals a process and its group, and a second one would end the tidying up half-way.
    A handler that a program around us has set stays.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def raw_root(given: str | None) -> AnyPath:
    """The raw root a command was given, or the one in the environment, or ./raw, or the sample one."""
    root = raw_root_if_any(given)
    if root is None:
        raise UsageError(
            "No raw root: ./raw is not there and VPT_DATA_RAW is not set; give --raw DIR, or --raw sample to try the "
            "synthetic one, or see `vpt-data sources` for where to get each upstream."
        )
    return root


def raw_root_if_any(given: str | None) -> AnyPath | None:
    """The same for commands that can do without: None where none is given, set in VPT_DATA_RAW, or in ./raw."""
    from vpt_data import store

    if given == "sample":
        return sample_root()
    if named := given or os.environ.get("VPT_DATA_RAW"):
        return store.at(named)
    here = store.at("raw")
    return here if here.exists() else None


def sample_root() -> Path:
    """The synthetic raw root in the cache folder; a bar shows how it is made."""
    from vpt_data import api

    with Bar("making the sample raw root") as bar:
        return api.sample_root(bar)
