"""Code and pages use words that a reader with another mother tongue knows; what must be looked up has a plainer one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: A word, and the one that is used here.
PLAIN = {
    "told": "reported",
    "mend": "repair",
    "mends": "repairs",
    "mended": "repaired",
    "anew": "again",
    "dealt": "distributed",
    "lies": "is located",
    "to be had": "available",
}


def uncommon(text: str) -> dict[str, str]:
    """The words of a text that have a plainer one, with that one; parts of names in code are words as well."""
    words = set(re.findall(r"to be had|[a-z]+", text.lower()))
    return {word: PLAIN[word] for word in sorted(words & set(PLAIN))}


def test_words_are_plain() -> None:
    code = [path for folder in ("vpt_data", "trainer", "bench", "docs") for path in (ROOT / folder).rglob("*.py")]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "manifests").glob("*.toml"), ROOT / "Makefile"]
    found = {path.relative_to(ROOT).as_posix(): uncommon(path.read_text(encoding="utf-8")) for path in code + pages}
    assert not {name: words for name, words in found.items() if words and name != "CHANGELOG.md"}


def test_an_uncommon_word_is_seen() -> None:
    assert uncommon("The file was mended and lies_there.") == {"lies": "is located", "mended": "repaired"}
    assert uncommon("already families") == {}
