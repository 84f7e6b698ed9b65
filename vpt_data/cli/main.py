"""The command line. Results go to stdout, progress and messages to stderr."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from types import TracebackType
from typing import Any

import click

from vpt_data import __version__
from vpt_data.cli import build, corpus, depth, download, exchange, publish, upstreams, view
from vpt_data.cli.common import fail, terminable
from vpt_data.errors import VptDataError


class _Group(click.Group):
    """Turns every expected error into one sentence and the exit code that goes with it."""

    def invoke(self, ctx: click.Context) -> Any:
        with terminable():
            return super().invoke(ctx) if ctx.params.get("debug") else self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VptDataError as error:
            fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            fail("Interrupted; run the same command again to continue.", 130)
        except BrokenPipeError:
            # The reader of our output has gone (`| head`); that is its decision, not an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            fail(_os_sentence(error), 1)
        except MemoryError:
            fail("Memory ran out; run the same command again with fewer --workers, or on a larger machine.", 1)


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
    if debug:
        sys.excepthook = _without_tokens


def _without_tokens(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback; the client of the Hub may have put a token into a message."""
    from vpt_data.exchange.hub.answers import redacted

    click.echo(redacted("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


for command in (
    build.build,
    upstreams.sample,
    upstreams.sources,
    download.download,
    upstreams.recipes,
    depth.depth,
    corpus.render,
    corpus.check,
    corpus.stats,
    corpus.drops,
    view.view,
    view.show,
    exchange.import_published,
    exchange.diff,
    exchange.export,
    publish.push_to_hub,
):
    main.add_command(command)
