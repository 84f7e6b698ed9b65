"""Somebody who reads a data set of the test Hub all the time, in every way there is, and writes down what it held.

`python watching.py CURRENT` reads, over and over, the repository that the file CURRENT names, until its stdin ends.
Each read is done by a child of its own, so that nothing is remembered from one to the next. A read that ends prints one
line of JSON.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Each child that streams would import it.
_NO_TORCH = {"USE_TORCH": "0"}
WAYS = ("load_dataset", "streaming", "tag", "open_corpus")


@dataclass(frozen=True)
class Read:
    """One read: how, of which repository (and configuration), and what came: rows and a digest of them, or an error.

    tag           where a tag was read
    fingerprint   where the manifest was read as well
    """

    way: str
    repository: str
    rows: int = 0
    digest: str = ""
    fingerprint: str | None = None
    tag: str | None = None
    error: str = ""


def digest(rows: Iterable[Mapping[str, Any]]) -> tuple[int, str]:
    """How many rows there are, and a name for their ids and dialogues."""
    texts = sorted(json.dumps([row["id"], row["messages"]], sort_keys=True) for row in rows)
    return len(texts), hashlib.sha256("\n".join(texts).encode()).hexdigest()


class Watcher:
    """The process; `look_at` names what it shall read."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._current, self._log = folder / "current", folder / "watching.log"
        self._current.touch()
        command = [sys.executable, "-P", __file__, str(self._current)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, env={**env, **_NO_TORCH}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.reads: list[Read] = []
        self._heard = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self.reads.append(Read(**json.loads(line)))
                self._heard.notify_all()

    def look_at(self, repository: str) -> None:
        """Read this repository (`ORG/NAME` or `ORG/NAME/CONFIG`) from the next read on."""
        temporary = self._current.with_suffix(".new")
        temporary.write_text(repository)
        temporary.replace(self._current)

    def await_reads(self, count: int) -> None:
        """Return when so many more reads have ended."""
        with self._heard:
            wanted = len(self.reads) + count
            assert self._heard.wait_for(lambda: len(self.reads) >= wanted, 60), self._log.read_text()

    def end(self) -> list[Read]:
        """End the process; all reads."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(60)
        self._thread.join()
        self._process.stdout.close()
        assert code == 0, self._log.read_text()
        return self.reads


# In the process --------------------------------------------------------------------------------------------


def main() -> None:
    # Once, for all children; `datasets` imports scipy where there is one.
    scipy = ["scipy.io"] if importlib.util.find_spec("scipy") else []
    for name in ("datasets", "huggingface_hub.hf_file_system", "vpt_data.corpus.reader", *scipy):
        importlib.import_module(name)
    current = Path(sys.argv[1])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    for way in itertools.cycle(WAYS):
        if ended.wait(0.005):
            return
        repository = current.read_text()
        if repository:
            _in_a_child(way, repository)


def _in_a_child(way: str, repository: str) -> None:
    child = os.fork()
    if child == 0:
        found = json.dumps({"way": way, "repository": repository, **_read(way, repository)})
        os.write(1, f"{found}\n".encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, (way, repository)


def _read(way: str, repository: str) -> dict[str, Any]:
    home = tempfile.mkdtemp()
    try:
        return _whole(way, repository, home)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _whole(way: str, repository: str, home: str) -> dict[str, Any]:
    import datasets
    from huggingface_hub import HfApi, constants

    from vpt_data.corpus.reader import open_corpus

    name, config = "/".join(repository.split("/")[:2]), "".join(repository.split("/")[2:])
    constants.HF_HUB_CACHE = home
    if way == "open_corpus":
        opened = open_corpus(f"hf://datasets/{repository}")
        count, found = digest(opened.rows(images=False))
        assert count == sum(split.rows for split in opened.manifest.splits.values()), "the manifest counts other rows"
        return {"rows": count, "digest": found, "fingerprint": opened.manifest.fingerprint}
    tag = None
    if way == "tag":
        tags = HfApi().list_repo_refs(name, repo_type="dataset").tags
        if not tags:
            return {"error": "no tag"}
        tag = tags[-1].name
    splits = datasets.load_dataset(name, config or None, revision=tag, cache_dir=home, streaming=way == "streaming")
    rows = (row for split in splits.values() for row in split.select_columns(["id", "messages"]))
    count, found = digest(rows)
    return {"rows": count, "digest": found, "tag": tag}


if __name__ == "__main__":
    main()
