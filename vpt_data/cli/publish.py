"""`vpt-data push-to-hub`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from vpt_data.cli.common import RAW, follow_links_option, json_option, place, raw_root_if_any, the_corpus
from vpt_data.errors import UsageError
from vpt_data.report import visible_line

if TYPE_CHECKING:
    from vpt_data.corpus.reader import Corpus
    from vpt_data.exchange.hub.content import Content
    from vpt_data.exchange.hub.plan import Wishes
    from vpt_data.exchange.hub.push import Patience
    from vpt_data.exchange.hub.remote import Repository
    from vpt_data.store import AnyPath


@click.command("push-to-hub")
@click.argument("corpora", metavar="[CORPUS]...", type=place, nargs=-1)
@click.option(
    "--repo",
    "--repo-id",
    "repo",
    metavar="ORG/NAME",
    help="The data set on the Hub; default: YOU/RECIPE. It is made if need be.",
)
@click.option("--private", is_flag=True, help="Only you, or the members of ORG, see a data set that is made.")
@click.option("--revision", default="main", show_default=True, help="The branch that is changed; made if need be.")
@click.option("--tag", help="Name of this version; default: v1, v2, ... on the branch main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request in place of changing the branch.")
@click.option("--message", help="Title of the commit.")
@click.option(
    "--allow-redistribution", "allowed", multiple=True, metavar="SET",
    help="You may hand on the images of this set (its folder as the card names it, or `own`); repeatable.",
)  # fmt: skip
@click.option("--raw", help=f"For pictures in the card of images that are not in the shards. {RAW}")
@follow_links_option
@click.option("--force", is_flag=True, help="Also corpora made with --limit, and repositories with files of others.")
@click.option("--dry-run", is_flag=True, help="Show what would happen, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def push_to_hub(
    corpora: tuple[AnyPath, ...], repo: str | None, private: bool, revision: str, tag: str | None, create_pr: bool,
    message: str | None, allowed: tuple[str, ...], raw: str | None, force: bool, dry_run: bool, yes: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Publish corpora as one data set on the Hugging Face Hub; several become its configs."""
    from vpt_data.exchange.hub import layout
    from vpt_data.exchange.hub.content import Content
    from vpt_data.exchange.hub.plan import Wishes
    from vpt_data.exchange.hub.push import Patience
    from vpt_data.exchange.hub.ready import ready
    from vpt_data.exchange.hub.remote import Repository, account

    asks = not (yes or dry_run)
    if asks and (as_json or not sys.stdin.isatty()):
        raise UsageError(
            "A push asks before it changes anything, and nobody can answer here; give --yes, or --dry-run to look."
        )
    opened = [ready(corpus, force) for corpus in corpora or (the_corpus(None),)]
    patience = Patience(lambda text: click.echo(visible_line(text), err=True))
    wanted = _wanted(repo, opened)
    _name_endpoint()
    # Who only looks at a repository needs no account.
    author = None if dry_run and "/" in wanted else patience.insist(lambda: account(wanted), first=True)
    name = wanted if "/" in wanted else f"{author}/{wanted}"
    job = _Job(
        Repository(name), Content(layout.parts(opened), name, raw_root_if_any(raw), allowed),
        Wishes(private, revision, tag, create_pr, message, force, frozenset(allowed)),
        author, patience, as_json,
    )  # fmt: skip
    if (asks or dry_run) and job.is_there_something_to_do() and asks and not click.confirm("Push this?", err=True):
        click.echo("Nothing was pushed.", err=True)
        sys.exit(1)
    if not dry_run:
        job.push()


@dataclass(frozen=True, slots=True)
class _Job:
    """A push between the command line and those who carry it out."""

    repository: Repository
    content: Content
    wishes: Wishes
    author: str | None
    patience: Patience
    as_json: bool

    def is_there_something_to_do(self) -> bool:
        """Show what would happen; False where everything is there already."""
        from vpt_data.exchange.hub import overview
        from vpt_data.exchange.hub import plan as plans

        where, what, how = self.repository, self.content, self.wishes
        plan = self.patience.insist(lambda: plans.make(where, what, how, self.author), first=self.author is None)
        cards = self.patience.insist(lambda: plans.card_difference(where, what, plan))
        if self.as_json:
            click.echo(json.dumps(overview.as_dict(where, what, plan, how) | {"card_difference": cards}))
        else:
            click.echo(overview.text(where, what, plan, how, cards))
        return not plan.done

    def push(self) -> None:
        """Carry it out, and say what was done."""
        from vpt_data.exchange.hub import overview
        from vpt_data.exchange.hub.push import Push

        assert self.author is not None
        result = Push(self.repository, self.content, self.wishes, self.author, self.patience).run()
        if self.as_json:
            done = overview.as_dict(self.repository, self.content, result.plan, self.wishes)
            click.echo(json.dumps(done | overview.result_as_dict(result)))
        else:
            click.echo(overview.result_text(self.repository, result))


def _wanted(repo: str | None, corpora: list[Corpus]) -> str:
    """The name of the repository, perhaps without an owner; UsageError for one that cannot be."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if repo is None and len(corpora) > 1:
        raise UsageError("Several corpora become one data set, which needs a name; give --repo ORG/NAME.")
    name = repo or corpora[0].manifest.recipe.name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(
            f"{name!r} cannot be the name of a data set on the Hub; give --repo ORG/NAME, at most 96 letters, digits, "
            "., _ and -, without -- and .."
        ) from error
    return name


def _name_endpoint() -> None:
    """Say so where another server than the Hub is asked: it gets the token."""
    from vpt_data.exchange.hub.answers import endpoint

    if endpoint() != "https://huggingface.co":
        click.echo(f"Note: HF_ENDPOINT is {endpoint()}; it is used in place of the Hub, and gets your token.", err=True)
