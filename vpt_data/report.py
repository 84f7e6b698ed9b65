"""What the reading commands report: findings of a check, and text tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Unicode categories of what has no shape of its own: control and format characters (among them those that turn the
#: direction of text), private and unassigned ones, halves of pairs, line ends that only Unicode knows.
_SHAPELESS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold: the file where it first broke, how often it broke in all, one example."""

    where: str
    rule: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold in one place, before counts of places are added up."""

    rule: str
    count: int
    example: str


class Findings:
    """Adds up what is found, one entry a rule. `rules` says what each demands, and gives their order."""

    def __init__(self, rules: Mapping[str, str]) -> None:
        self._order = {rule: place for place, rule in enumerate(rules)}
        self._found: dict[str, Finding] = {}

    def add(self, where: str, broken: Broken) -> None:
        """Count a broken rule; the first place and example stay."""
        if broken.count == 0:
            return
        seen = self._found.get(broken.rule)
        if seen is None:
            self._found[broken.rule] = Finding(where, broken.rule, broken.count, broken.example)
        else:
            count = seen.count + broken.count
            self._found[broken.rule] = Finding(seen.where, seen.rule, count, seen.example)

    def findings(self) -> list[Finding]:
        """One finding a rule, in the order of the rules."""
        return sorted(self._found.values(), key=lambda finding: self._order[finding.rule])


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    kind    "corpus" or "published"
    rows    rows that were read
    rules   what each rule of the findings demands, by its name
    counts  what was counted on the way, for information: group -> name -> number
    """

    target: str
    kind: str
    rows: int
    findings: list[Finding]
    rules: Mapping[str, str]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "target": self.target,
            "kind": self.kind,
            "rows": self.rows,
            "ok": not self.findings,
            "counts": {group: dict(counts) for group, counts in self.counts.items()},
            "findings": [asdict(found) | {"demand": self.rules[found.rule]} for found in self.findings],
        }

    def text(self) -> str:
        """The report for people."""
        lines = []
        for group, counts in self.counts.items():
            named = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
            lines.append(f"{group}: {named or '-'}")
        if not self.findings:
            return "\n".join([*lines, f"{self.target}: {self.rows:,} rows, nothing found."])
        for found in self.findings:
            lines.append(f"{found.rule} ({found.count:,}): {self.rules[found.rule]}.")
            lines.append(f"    {visible_line(f'{found.where}: {found.example}')}")
        rules = "1 rule" if len(self.findings) == 1 else f"{len(self.findings)} rules"
        return "\n".join([*lines, f"{self.target}: {self.rows:,} rows, {rules} broken."])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table; columns of numbers are right-aligned, and cells are `visible_line`s.

    >>> print(table(["take", "rows"], [["vsr", "3,376"], ["cub", "12"]]))
    take   rows
    ----  -----
    vsr   3,376
    cub      12
    """
    rows = [list(map(visible_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    numeric = numeric_columns(rows) or [False] * len(widths)

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return "  ".join(placed).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns of a table hold numbers only, and are right-aligned; of no rows none."""
    return [all(map(_is_number, column)) for column in zip(*rows, strict=True)]


def _is_number(cell: str) -> bool:
    return cell in {"all", "-"} or cell.strip("+-%").replace(",", "").replace(".", "").isdigit()


def markdown_code(names: Iterable[str]) -> str:
    """Names as code: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)


def markdown_line(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def visible(text: str) -> str:
    r"""The text with a mark in place of every character without a shape; line ends stay, tabs become blanks.

    >>> visible("a\r\nb\tc\u202ed\x1b[31m")
    'a\nb c�d�[31m'
    """
    plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join(
        letter if letter == "\n" or unicodedata.category(letter) not in _SHAPELESS else "\ufffd" for letter in plain
    )


def visible_line(text: str) -> str:
    r"""The same on one line, for a terminal: what a file says cannot colour it, rename it or begin a line of ours.

    >>> visible_line("a\nb\x1b]0;c\a")
    'a b�]0;c�'
    """
    return visible(text).replace("\n", " ")


def markdown_text(text: str) -> str:
    r"""Text on one line that no reader takes for Markdown or HTML.

    >>> markdown_text("a | *b* <img src=x> [c](d)")
    'a &#124; \\*b\\* &lt;img src=x&gt; \\[c\\](d)'
    """
    line = markdown_line(visible(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#~$!])", r"\\\1", line).replace("|", "&#124;")


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table; bars and line ends inside cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([markdown_line(cell).replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
