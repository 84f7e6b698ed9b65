"""What an exporter is: one row of a corpus in, one record of its format out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vpt_data.dialogue.tokens import placeholders

Row = Mapping[str, Any]
_PLACEHOLDER = re.compile("|".join(map(re.escape, placeholders().values())))


class Pictures(Protocol):
    """The images of rows as a format names them."""

    def path(self, row: Row, which: int) -> str:
        """The path of a whole image."""
        ...

    def file(self, row: Row, number: int) -> str:
        """The path of a file with what `views[number]` shows; a crop is written as a file of its own."""
        ...

    def data(self, row: Row, number: int) -> str:
        """What `views[number]` shows as a data URI."""
        ...


class Unsayable(Exception):
    """A row that a format cannot hold; the text says what of it, and is what such rows are counted by."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A format.

    record   a row, and where its images are -> the record, plain values for JSON; raises Unsayable
    lines    one record a line (`SPLIT.jsonl`), not one JSON array (`SPLIT.json`)
    crops    how crops are written, and in which coordinates: one sentence for people
    loss     what of a row the format cannot say: one sentence for people
    follows  the release whose documentation it follows
    beside   further files beside the records, by name, from the names of the splits
    """

    record: Callable[[Row, Pictures], dict[str, Any]]
    lines: bool
    crops: str
    loss: str
    follows: str
    beside: Callable[[list[str]], dict[str, bytes]] = lambda splits: {}

    def file(self, split: str) -> str:
        """The file with the records of a split."""
        return f"{split}.{'jsonl' if self.lines else 'json'}"


def pieces(row: Row) -> Iterator[list[str | int]]:
    """The content of each message of a row: texts, and for each placeholder the number of its view."""
    number = 0
    for message in row["messages"]:
        found: list[str | int] = []
        end = 0
        for placeholder in _PLACEHOLDER.finditer(message["content"]):
            found += [message["content"][end : placeholder.start()], number]
            number, end = number + 1, placeholder.end()
        found.append(message["content"][end:])
        yield [piece for piece in found if piece != ""]
