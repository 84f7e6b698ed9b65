"""An output folder that one run fills from beginning to end: new, empty, or left behind by a run of the same kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.reader import DROPPED, ORIGINS
from vpt_data.errors import OutputError
from vpt_data.store import AnyPath

TABLES = (DROPPED, ORIGINS)


def settle(out: AnyPath, mark: str, what: str, made_by: Mapping[str, Any] | None = None) -> None:
    """Make `out` an empty folder with a file called `mark`, or say why it cannot be.

    mark   says whose files these are until the last of them is written; `finish` takes it away
    what   what will be in the folder: "the rendered corpus"
    made_by  what decides the files that a stopped run leaves for the next one to use

    Raises OutputError for a file, and for a folder that holds anything that a run with this mark did not leave.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: this is a file; give a folder for the corpus.")
    text = json.dumps(dict(made_by or {}))
    if (out / mark).is_file():
        others = any(path.name != mark for path in out.iterdir())
        if made_by and others and (out / mark).read_text().strip() != text:
            raise OutputError(
                f"{out}: a run with other options was stopped here; give an empty or new folder for {what}."
            )
        store.remove_tree(out / "data")
        for left in (*(out / name for name in (manifest.NAME, "README.md", *TABLES)), *out.glob("*.tmp")):
            left.unlink(missing_ok=True)
    elif out.is_dir() and any(not path.name.startswith(f"{mark}.") for path in out.iterdir()):
        raise OutputError(f"{out}: the folder is not empty; give an empty or new folder for {what}.")
    for left in out.glob(f"{mark}.*.tmp"):  # the mark of a run that was killed in its first moment
        left.unlink()
    out.mkdir(parents=True, exist_ok=True)
    manifest.write_text(out / mark, f"{text}\n")


def finish(out: AnyPath, mark: str) -> None:
    """Take the mark away: the folder is whole."""
    (out / mark).unlink()
