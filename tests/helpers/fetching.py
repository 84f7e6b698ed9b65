"""What the tests of downloads share: one file from the hostile server, the command with a manifest, archives."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers.hostile_server import HostileServer, Reply

from vpt_data.cli.main import main
from vpt_data.errors import RawError, VptDataError
from vpt_data.upstream.download import http
from vpt_data.upstream.download.http import Got, Patience

ROWS = b"".join(b'{"row": %d, "noise": "%d"}\n' % (n, random.Random(n).getrandbits(200)) for n in range(2000))
SHA = hashlib.sha256(ROWS).hexdigest()

#: What a manifest says of one file without a checksum.
FILE = '{ path = "mine/rows.jsonl", name = "rows.jsonl" }'


class Fetch:
    """`transfer.fetch` with waits that are written down instead of waited for."""

    def __init__(self, folder: Path, server: HostileServer, name: str = "rows.jsonl") -> None:
        self.folder, self.server, self.name = folder, server, name
        self.part = folder / f"{name}.part"
        self.waits: list[float] = []
        self.private = {"127.0.0.1"}

    def path(self) -> str:
        return f"/{self.folder.name}/{self.name}"

    def serve(self, *replies: Reply | bytes) -> str:
        return self.server.serve(self.path(), *replies)

    def __call__(self, size: int | None = None, sha256: str | None = None, timeout: float = 20) -> Got:
        url = f"{self.server.url}{self.path()}"
        patience = Patience(timeout=timeout, sleep=self.waits.append)
        return http.fetch(url, self.part, self.name, size, sha256, patience=patience, private=self.private)

    def fails(self, kind: type[VptDataError] = RawError, **known: object) -> str:
        with pytest.raises(kind) as raised:
            self(**known)  # type: ignore[arg-type]
        return str(raised.value).replace(self.server.url + self.path(), "URL")

    def nothing_is_left(self) -> bool:
        return not list(self.folder.iterdir())

    def ranges(self) -> list[str | None]:
        return [seen.range for seen in self.server.asked(self.path())]


class Desk:
    """A raw root, a manifest of one's own, and the command."""

    def __init__(self, folder: Path, server: HostileServer) -> None:
        self.server, self.raw, self.manifest = server, folder / "raw", folder / "own.toml"
        self.base = f"/{folder.name}/"
        self.write(FILE)
        self.serve(ROWS)

    def write(self, *files: str, top: str | None = None, license_: str = "CC0-1.0") -> None:
        where = f'base = "{self.server.url}{self.base}"' if top is None else top
        self.manifest.write_text(
            f'[download.mine]\ntitle = "Mine"\nlicense = "{license_}"\npage = "https://mine.example/terms"\n'
            f"{where}\nfiles = [\n{''.join(f'  {file},{chr(10)}' for file in files)}]\n",
            encoding="utf-8",
        )

    def serve(self, *replies: Reply | bytes, name: str = "rows.jsonl") -> None:
        self.server.serve(f"{self.base}{name}", *replies)

    def asked(self, name: str = "rows.jsonl") -> int:
        return len(self.server.asked(f"{self.base}{name}"))

    def arguments(self, *more: str, accept: bool = True) -> list[str]:
        terms = ["--accept-license", "mine"] if accept else []
        where = ["--raw", str(self.raw), "--manifest", str(self.manifest), "--private-host", "127.0.0.1"]
        return ["download", "mine", *where, *terms, *more]

    def run(self, *more: str, accept: bool = True) -> Result:
        return CliRunner().invoke(main, self.arguments(*more, accept=accept))

    def works(self, *more: str, accept: bool = True) -> dict[str, Any]:
        """The one file's outcome."""
        done = self.run("--json", *more, accept=accept)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)["sources"]["mine"]["files"][0]
        return found

    def fails(self, *more: str, code: int = 1, accept: bool = True) -> str:
        done = self.run(*more, accept=accept)
        assert done.exit_code == code, done.output
        last = done.stderr.splitlines()[-1]
        assert last.startswith("Error: ")
        return last[7:].replace(self.server.url, "URL")

    def lock(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.raw / ".vpt-data/downloads.json").read_text())
        return found

    def files(self) -> set[str]:
        """What lies under the raw root, apart from our own folder."""
        found = (path.relative_to(self.raw).as_posix() for path in self.raw.rglob("*") if path.is_file())
        return {path for path in found if not path.startswith(".vpt-data/")}


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], deflated: bool = False) -> Path:
    how = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as made:
        for name, data in members:
            made.writestr(name, data)
    return path


def tar_of(path: Path, *members: tuple[str | tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, data in members:
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return path
