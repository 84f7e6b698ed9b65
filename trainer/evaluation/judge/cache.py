"""Replies of judges that are known already, in one SQLite file; what was paid for once is not asked again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path

from vpt_data.errors import OutputError


class Replies:
    """Replies by what was asked: the model, its settings and the whole prompt, not the row. For many threads."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(file, check_same_thread=False, timeout=60)
            with self._file:
                self._file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{file}: the cache of the judge cannot be used ({error}); delete it.") from error

    def get(self, judge: str, prompt: str) -> str | None:
        """The reply of a judge to a prompt, if it is known."""
        with self._lock:
            found = self._file.execute("SELECT reply FROM replies WHERE key = ?", (_key(judge, prompt),)).fetchone()
        return None if found is None else str(found[0])

    def put(self, judge: str, prompt: str, reply: str) -> None:
        """Keep a reply; it is on the disk when this returns."""
        with self._lock, self._file:
            self._file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (_key(judge, prompt), reply))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _key(judge: str, prompt: str) -> str:
    return hashlib.sha256(json.dumps([judge, prompt]).encode()).hexdigest()
