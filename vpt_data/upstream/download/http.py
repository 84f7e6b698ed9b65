"""One file over HTTP into a `.part` file: resumed, retried, never larger or other than it should be.

Beside the part is a JSON file with the address and the validator (ETag or date) of the whole file, so that a later
process can continue. A server is trusted in nothing: ranges that it ignores, wrong lengths, pages instead of
files, and files that change between two attempts are all met in practice.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from vpt_data import __version__
from vpt_data.errors import OutputError, RawError
from vpt_data.upstream.download import sniff
from vpt_data.upstream.download.addresses import Number, proxy_of, resolved

if TYPE_CHECKING:
    import httpx2

_CHUNK = 1 << 20
#: How often bytes are made sure of: at most so many are fetched again after a crash.
_SYNC = 8 << 20
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 10
_LATER = {408, 425, 429}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: attempts in a row that bring nothing new, waits in seconds (doubled each time), time-outs."""

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 300.0
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep


class Got(NamedTuple):
    """A complete part: bytes, sha256, and the ETag its server gave it."""

    size: int
    sha256: str
    etag: str | None


class _State(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a part is a part of: `total` in bytes, of which `synced` are on the disk for certain."""

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None
    synced: int = 0

    def validator(self) -> str | None:
        """What `If-Range` may compare; a weak ETag must not be used there."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class _Again(Exception):
    """An attempt failed in a way that the next may not; `wait` is what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _Part:
    """The bytes that are there, their sha256, and what they are a part of."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.size, self._sha = path, 0, hashlib.sha256()
        self._note = path.with_name(f"{path.name}.json")
        self.state = _State(url)
        if path.is_symlink():
            path.unlink()  # writing through it would leave the raw root
        self._adopt(url)

    def _adopt(self, url: str) -> None:
        """Take over what an earlier process left, if it says what it is a part of.

        After a power cut a file may be longer than what was written of it, so only synced bytes count.
        """
        try:
            state = msgspec.json.decode(self._note.read_bytes(), type=_State)
            there = self.path.stat().st_size
        except (OSError, msgspec.DecodeError):
            return
        if state.url != url or state.validator() is None or there < state.synced:
            return
        with self.path.open("r+b") as file:
            file.truncate(state.synced)
            while data := file.read(_CHUNK):
                self._sha.update(data)
                self.size += len(data)
        self.state = state

    def begin(self, state: _State) -> None:
        """From here on it is a part of this."""
        self.state = state
        note = self._note.with_name(f"{self._note.name}.tmp")
        note.write_bytes(msgspec.json.encode(state))
        note.replace(self._note)

    def restart(self) -> None:
        """Forget the bytes."""
        self.size, self._sha = 0, hashlib.sha256()
        self.path.unlink(missing_ok=True)

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """A function that appends bytes; they are on the disk when the block ends, however it ends."""
        with self.path.open("ab", buffering=0) as file:
            try:
                yield lambda data: self._write(file, data)
            finally:
                self._sync(file)

    def _write(self, file: BinaryIO, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            done = file.write(rest)  # less than all of it where the disk is about to be full
            self._sha.update(rest[:done])
            self.size += done
            rest = rest[done:]
        if self.size - self.state.synced >= _SYNC:
            self._sync(file)

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())
        self.begin(msgspec.structs.replace(self.state, synced=self.size))

    def sha256(self) -> str:
        """Of all bytes so far."""
        return self._sha.hexdigest()

    def remove(self) -> None:
        """Remove part and note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def fetch(
    url: str,
    part: Path,
    name: str,
    size: int | None,
    sha256: str | None,
    *,
    patience: Patience,
    private: Collection[str] = (),
    progress: Progress | None = None,
) -> Got:
    """Have all of `url` in `part`, checked against size and sha256 where they are known, and against its own format.

    `name` promises the format and is used in messages; the hosts in `private` may be in a private network. The part
    stays for the next run where the transfer could not be completed, and is removed where its content is wrong. Raises
    RawError for what the server does, OutputError for what the disk does.
    """
    there = _Part(part, url)
    failed, most = 0, there.size
    while True:
        try:
            _attempt(there, name, size, patience, private, progress)
            break
        except _Again as trouble:
            if there.size > most:
                failed, most = 0, there.size
            failed += 1
            wait = trouble.wait if trouble.wait is not None else patience.first_wait * 2 ** (failed - 1)
            if failed >= patience.tries or (trouble.wait or 0) > patience.longest_wait:
                raise RawError(_gave_up(name, url, trouble, failed, there.size, patience)) from trouble.__cause__
            patience.sleep(min(wait, patience.longest_wait))
    _check(there, name, url, size, sha256)
    return Got(there.size, there.sha256(), there.state.etag)


def _gave_up(name: str, url: str, trouble: _Again, failed: int, have: int, patience: Patience) -> str:
    kept = f"{have:,} bytes are kept, " if have else ""
    if (trouble.wait or 0) > patience.longest_wait:
        return (
            f"{name}: {url} {trouble} and asks to come back in {trouble.wait:.0f} s; {kept}run the same command then."
        )
    times = "once" if failed == 1 else f"{failed} times in a row"
    return f"{name}: {url} {trouble} ({times}); {kept}run the same command again later to continue."


def _attempt(
    there: _Part, name: str, size: int | None, patience: Patience, private: Collection[str], progress: Progress | None
) -> None:
    import httpx2

    if there.size and there.size == there.state.total:
        return
    if there.size and there.state.validator() is None:
        there.restart()  # it is not known whether the rest would be of the same file
    headers = {"Accept-Encoding": "identity", "User-Agent": f"vpt-data/{__version__}"}
    if there.size:
        headers |= {"Range": f"bytes={there.size}-", "If-Range": str(there.state.validator())}
    try:
        with _open(there.state.url, headers, patience, private) as response:
            _receive(there, response, name, size, progress)
    except socket.gaierror as error:
        raise _Again(f"cannot be reached ({error.strerror})") from error
    except httpx2.TimeoutException as error:
        raise _Again(f"sent nothing for {patience.timeout:g} s") from error
    except httpx2.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise RawError(f"{name}: {there.state.url} has no certificate that this machine trusts.") from error
        broke = "broke the connection" if there.size else "cannot be reached, or broke the connection at once"
        raise _Again(f"{broke} ({error or type(error).__name__})") from error


@contextmanager
def _open(url: str, headers: dict[str, str], patience: Patience, private: Collection[str]) -> Iterator[httpx2.Response]:
    """The answer to a GET, redirects followed by our own rules."""
    import httpx2

    origin = url
    for _ in range(_MOST_REDIRECTS + 1):
        proxy = proxy_of(url)
        numbers = resolved(origin, url, private, proxied=proxy is not None)
        trusted = httpx2.create_ssl_context()  # also SSL_CERT_FILE, which `trust_env` below would turn off
        with (
            httpx2.Client(timeout=patience.timeout, verify=trusted, proxy=proxy, trust_env=False) as client,
            _answer(client, url, headers, numbers) as response,
        ):
            target = response.headers.get("location")
            if response.status_code not in _REDIRECTS or target is None:
                yield response
                return
            url = str(httpx2.URL(url).join(target))
    raise RawError(f"{origin}: redirects more than {_MOST_REDIRECTS} times, last to {url}; expected the file.")


@contextmanager
def _answer(
    client: httpx2.Client, url: str, headers: dict[str, str], numbers: Sequence[Number]
) -> Iterator[httpx2.Response]:
    """The answer of the first of the checked numbers that takes the connection; certificates are for the name."""
    import httpx2

    named = httpx2.URL(url)
    places = [named.copy_with(host=str(number)) for number in numbers] or [named]
    headers = headers | {"Host": named.netloc.decode("ascii")}
    for left in reversed(range(len(places))):
        place = places[len(places) - 1 - left]
        name = {"sni_hostname": named.raw_host.decode("ascii")}
        try:
            response = client.send(client.build_request("GET", place, headers=headers, extensions=name), stream=True)
            break
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if not left:
                raise
    try:
        yield response
    finally:
        response.close()


def _receive(there: _Part, response: httpx2.Response, name: str, size: int | None, progress: Progress | None) -> None:
    _refuse(there, response, name)
    total = _total(there, response)
    if size is not None and total is not None and total != size:
        there.remove()
        raise RawError(
            f"{name}: {there.state.url} announces {total:,} bytes, the manifest says {size:,}; "
            "the owner has changed the file, or this is another one."
        )
    _check_space(there, name, total if total is not None else size)
    most = total if total is not None else size
    chunks = response.iter_raw()
    head = b"" if there.size else _head(there, response, name, chunks)
    try:
        if response.status_code == 200:
            headers = response.headers
            there.begin(_State(there.state.url, headers.get("etag"), headers.get("last-modified"), total))
        with there.appending() as append:
            for chunk in itertools.chain([head], chunks):
                append(chunk)
                if progress is not None:
                    progress(there.size, most or there.size)
                if most is not None and there.size > most:
                    break
    except OSError as error:
        raise OutputError(
            f"{name}: cannot be written ({error.strerror}); free some space and run the same command again, "
            "what came is kept."
        ) from error
    if total is not None and there.size < total:
        raise _Again(f"ended after {there.size:,} of {total:,} bytes")


def _head(there: _Part, response: httpx2.Response, name: str, chunks: Iterator[bytes]) -> bytes:
    """The first bytes of a file, once they are what they should be."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= sniff.HEAD:
            break
    found = sniff.wrong_head(name, head[: sniff.HEAD], response.headers.get("content-type", ""))
    if found is not None:
        there.remove()
        raise RawError(f"{name}: {there.state.url} sent {found} instead of the file; nothing was kept.")
    return head


def _refuse(there: _Part, response: httpx2.Response, name: str) -> None:
    """Raise for every answer that does not begin, or go on with, the file."""
    status = response.status_code
    if status == 416:
        there.restart()
        raise _Again("no longer has the rest of what came before")
    if status in _LATER or status >= 500:
        raise _Again(f"answered {status} {response.reason_phrase}".rstrip(), _retry_after(response))
    if status in {401, 403}:
        raise RawError(f"{name}: {there.state.url} answered {status}, access refused; see the owner's page for terms.")
    if status not in {200, 206}:
        raise RawError(f"{name}: {there.state.url} answered {status} {response.reason_phrase}; expected the file.")


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds the server asks to wait, given as a number or as a date."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _total(there: _Part, response: httpx2.Response) -> int | None:
    """Bytes of the whole file as the server says; a part that the answer does not continue is dropped first."""
    if response.status_code == 200:
        there.restart()
        length = response.headers.get("content-length")
        return int(length) if length is not None else None
    given = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("content-range", "").strip())
    etag = response.headers.get("etag")
    fits = (
        given is not None
        and int(given[1]) == there.size
        and (given[3] == "*" or there.state.total in {None, int(given[3])})
        and (etag is None or etag == there.state.etag)
    )
    if given is None or not fits:
        there.restart()
        raise _Again("answered with another range than the one asked for")
    return there.state.total if given[3] == "*" else int(given[3])


def _check_space(there: _Part, name: str, total: int | None) -> None:
    free = shutil.disk_usage(there.path.parent).free
    if total is not None and total - there.size > free:
        raise OutputError(
            f"{name}: needs {total - there.size:,} more bytes, and {there.path.parent} has {free:,} free; "
            "free some space and run the same command again."
        )


def _check(there: _Part, name: str, url: str, size: int | None, sha256: str | None) -> None:
    """The complete part against all that is known; removed where it is wrong."""
    found = None
    if size is not None and there.size != size:
        found = f"sent {there.size:,} bytes, the manifest says {size:,}"
    elif (odd := sniff.wrong(there.path, name)) is not None:
        found = f"sent {odd} instead of the file"
    elif sha256 is not None and there.sha256() != sha256:
        found = f"sent bytes with sha256 {there.sha256()}, the manifest says {sha256}"
    if found is not None:
        there.remove()
        raise RawError(f"{name}: {url} {found}; nothing was kept.")
