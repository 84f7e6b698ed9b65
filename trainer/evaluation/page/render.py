"""Results and examples as one HTML file, in the look of the pages of `vpt-data view`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Final, NamedTuple

import pyarrow as pa
from markupsafe import Markup

from trainer.evaluation import report
from trainer.evaluation.items import Items
from trainer.evaluation.page.examples import Example, examples
from trainer.evaluation.page.plots import plots
from trainer.evaluation.report import Section
from trainer.evaluation.results import Results
from vpt_data.corpus.reader import Corpus
from vpt_data.inspect.figures import Plot
from vpt_data.inspect.view import page
from vpt_data.report import numeric_columns
from vpt_data.store import AnyPath

_TEMPLATE: Final = "report.html.j2"
_STYLE: Final = "report.css"
#: Characters from which a cell is broken into lines.
_LONG: Final = 30
_SIDES: Final = (("Successes", True), ("Failures", False))


class Part(NamedTuple):
    """A section of the report with its plots; `numeric` are the columns of its table that hold numbers."""

    section: Section
    plots: list[Plot]
    numeric: list[bool]

    @property
    def note(self) -> Markup:
        """The note, with names in backticks as code."""
        pieces = self.section.note.split("`")
        return Markup("").join(
            Markup("<code>{}</code>").format(piece) if number % 2 else piece for number, piece in enumerate(pieces)
        )

    def kind(self, row: int, column: int) -> str:
        """The class of a cell: a number or a long text, and its share of the row in tenths."""
        section = self.section
        kind = "number" if self.numeric[column] else "long" if len(section.rows[row][column]) > _LONG else ""
        if row < len(section.shares) and (place := column - len(section.head) + len(section.shares[row])) >= 0:
            kind += f" s{round(10 * section.shares[row][place])}"
        return kind


class Headline(NamedTuple):
    """A figure at the top of the page."""

    name: str
    figure: str
    about: str


def page_of(results: Results, title: str, corpus: Corpus, asked: Items, records: pa.Table, raw: AnyPath | None) -> str:
    """The page of results, with examples from records of rows of a corpus; `raw` is its raw root, if there is one."""
    return render(results, title, examples(corpus, asked, records, raw), corpus.embed or raw is not None)


def render(results: Results, title: str, shown: Sequence[Example], pixels: bool) -> str:
    """One HTML file without any script; names and texts of corpus and model are escaped.

    shown   rows that were asked
    pixels  whether there is anywhere to look for the pixels of the images

    The content-security policy allows this one style and pictures from data URIs, and nothing else.
    """
    style = page.style() + _text(_STYLE)
    return page.template(_text(_TEMPLATE)).render(
        title=title,
        results=results,
        headlines=list(_headlines(results)),
        parts=[
            Part(section, list(plots(results, section)), numeric_columns(section.rows))
            for section in report.sections(results)
        ],
        sides=[(name, [one for one in shown if one.success == success]) for name, success in _SIDES],
        facts=report.facts(results),
        pixels=pixels,
        style=Markup(style),
        policy=page.policy(style),
    )


def _headlines(results: Results) -> Iterator[Headline]:
    """What a reader wants first: the score, of several splits their mean, and whether looks were those expected."""
    splits = list(results.splits.values())
    scores = results.averages if len(splits) > 1 else splits[0].figures
    for name, title in (("score", "mean score"), ("judge", "judge")):
        if (one := scores.get(name)) is not None and one.value is not None:
            about = f"{report.interval(one)}, {one.rows:,} rows"
            yield Headline(f"{title} of the splits" if len(splits) > 1 else title, f"{one.value:.3f}", about)
    counts = [(expected, made) for split in splits for expected, made in split.triggers.items()]
    asked = sum(sum(made.values()) for _, made in counts)
    if asked:
        right = sum(made[expected] for expected, made in counts)
        yield Headline("looks as expected", f"{right / asked:.1%}", f"{right:,} of {asked:,} rows")


def _text(name: str) -> str:
    return (resources.files(__package__) / "web" / name).read_text(encoding="utf-8")
