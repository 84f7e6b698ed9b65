"""Errors a user can cause or meet; each message is one sentence: where, what was found, what was expected, what to do.

VptDataError
├── UsageError      wrong command line, wrong recipe, unknown name     exit code 2
├── RawError        raw files missing or unreadable                    exit code 1
├── OutputError     the output folder cannot be used or written        exit code 1
├── CorpusError     a folder or file is not the corpus it should be    exit code 1
└── HubError        the Hugging Face Hub refuses, or is out of reach   exit code 1
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VptDataError(Exception):
    """Base of every error this package raises on purpose; the CLI prints its text and no traceback."""

    exit_code = 1


class UsageError(VptDataError):
    """The command line or a recipe asks for something that does not exist or cannot be."""

    exit_code = 2


class RawError(VptDataError):
    """A raw file is missing, unreadable or not in its owner's format."""


class OutputError(VptDataError):
    """The output folder holds something else, or cannot be written."""


class CorpusError(VptDataError):
    """A folder is not a finished corpus, or a shard of it is damaged."""


class HubError(VptDataError):
    """The Hugging Face Hub refuses what was asked of it, holds something else than expected, or cannot be reached."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """One sentence that names the nearest known names; `unknown_name("recipe", "mixvrt_dno", ...)`."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"known: {', '.join(names[:20])}{', ...' if len(names) > 20 else '.'}"
    return UsageError(f"Unknown {kind} {name!r}; {hint}")
