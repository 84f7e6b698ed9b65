"""Markdown of cards and reports: YAML heads, tables, code names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Plain YAML scalars that no parser reads as anything but text; all else is quoted.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./<-]*")
#: Words that YAML 1.1 reads as true, false or null.
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def yaml_text(value: Mapping[str, Any] | Sequence[Any], indent: int = 0) -> str:
    """Mappings, lists and scalars as block YAML that any YAML 1.1 parser reads back as the same value.

    >>> print(yaml_text({"language": ["en", "no"], "configs": [{"config_name": "default", "default": True}]}))
    language:
    - en
    - "no"
    configs:
    - config_name: default
      default: true
    """
    pad, lines = " " * indent, []
    if not isinstance(value, Mapping):
        for item in value:
            text = yaml_text(item, indent + 2).lstrip(" ") if _nested(item) else _scalar(item)
            lines.append(f"{pad}- {text}")
        return "\n".join(lines)
    for key, item in value.items():
        inner = indent if isinstance(item, list) else indent + 2
        text = f"\n{yaml_text(item, inner)}" if _nested(item) else f" {_scalar(item)}"
        lines.append(f"{pad}{_scalar(key)}:{text}")
    return "\n".join(lines)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | list) and len(value) > 0


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    # JSON text is YAML, except that unescaped separators such as U+2028 would be folded away.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08X}" for letter in text)


def code(names: Iterable[str]) -> str:
    """Names as code: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)


def line(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; bars and line ends inside cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([line(cell).replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
