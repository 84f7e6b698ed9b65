"""Seeded damage to files: the same plan damages the same bytes in the same way."""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from random import Random

from helpers import image_files
from helpers.packed import cut, tarred, zipped

#: JSON values that are legal or nearly so, and what no reader expects; `%OUT%` is a place that must not be touched.
AWKWARD = (
    b"null", b"true", b"[]", b"{}", b'""', b'" "', b"-1", b"0", b"-0.0", b"1e308", b"1e999", b"-1e999", b"NaN",
    b"Infinity", b"2147483648", b"9223372036854775808", b"1" + b"0" * 400, b"0." + b"0" * 400 + b"1",
    b'"\\ud800"', b'"\\u0000"', b'"\\"', b'"<image>"', b'"<image><image>"',
    b'"' + b"x" * 70_000 + b'"', b"[" * 3_000 + b"]" * 3_000,
    b'{"a":' * 3_000 + b"1" + b"}" * 3_000, b"[null]", b"[[1,2,3,4]]", b"[1,2,3]", b"[[[1,2,3,4]]]", b"[NaN,1,2,3]",
    b"[-1e300,-1e300,1e300,1e300]", b'"../secret.jpg"', b'"../../secret.jpg"', b'"../../../secret.jpg"', b'"%OUT%"',
    b'"..\\\\..\\\\secret.jpg"', b'"a\\u0000.jpg"', b'"/etc/passwd"', b'"."', b'".."', b'"~"',
    b'"http://a/b.jpg"', b'"=1+1"',
)  # fmt: skip
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|\btrue\b|\bfalse\b|\bnull\b')
_KEY = re.compile(rb'\{\s*("(?:[^"\\]|\\.)*")\s*:')

Change = Callable[[Random, bytes], bytes]


def _spot(plan: Random, data: bytes) -> int:
    return plan.randrange(len(data) + 1)


def _put(data: bytes, at: int, new: bytes, instead: int = 0) -> bytes:
    return data[:at] + new + data[at + instead :]


def flipped(plan: Random, data: bytes) -> bytes:
    """One to twenty bits the other way round."""
    changed = bytearray(data)
    for _ in range(plan.randrange(1, 21) if data else 0):
        changed[plan.randrange(len(data))] ^= 1 << plan.randrange(8)
    return bytes(changed)


def shortened(plan: Random, data: bytes) -> bytes:
    return data[: _spot(plan, data)]


def _with_hole(plan: Random, data: bytes) -> bytes:
    return _put(data, _spot(plan, data), b"", plan.randrange(1, 200))


def _with_noise(plan: Random, data: bytes) -> bytes:
    return _put(data, _spot(plan, data), plan.randbytes(plan.randrange(1, 60)), plan.choice((0, 30)))


def _with_odd_bytes(plan: Random, data: bytes) -> bytes:
    odd = (b"\0", b"\0" * 4096, b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\x1a", b"\n", b"\n\n")
    return _put(data, _spot(plan, data), plan.choice(odd))


def _stuttering(plan: Random, data: bytes) -> bytes:
    at = _spot(plan, data)
    return _put(data, at, data[at : at + plan.randrange(1, 2000)])


def _other_value(plan: Random, data: bytes) -> bytes:
    """A text, number or name of the file becomes something awkward."""
    found = list(_VALUE.finditer(data))
    if not found:
        return data
    start, end = plan.choice(found).span()
    return _put(data, start, plan.choice(AWKWARD), end - start)


def like_value(plan: Random, data: bytes) -> bytes:
    """A text becomes another text or a number another number, so that the file stays what a schema expects."""
    found = list(_VALUE.finditer(data))
    if not found:
        return data
    match = plan.choice(found)
    fits = [value for value in AWKWARD if value[:1].isdigit() == match[0][:1].isdigit()]
    fits = [value for value in fits if (value[:1] == b'"') == (match[0][:1] == b'"')]
    return _put(data, match.start(), plan.choice(fits), len(match[0]))


def _other_column(plan: Random, data: bytes) -> bytes:
    """All values of one name become something awkward."""
    names = sorted(set(re.findall(rb'("\w+")\s*:', data)))
    if not names:
        return _other_value(plan, data)
    column = re.compile(rb"(" + re.escape(plan.choice(names)) + rb"\s*:\s*)(?:" + _VALUE.pattern + rb")")
    awkward = plan.choice([value for value in AWKWARD if len(value) < 1000])
    return bytes(column.sub(lambda match: match[1] + awkward, data))


def _same_key_twice(plan: Random, data: bytes) -> bytes:
    found = list(_KEY.finditer(data))
    if not found:
        return data
    match = plan.choice(found)
    return _put(data, match.start() + 1, match[1] + b":" + plan.choice(AWKWARD) + b",")


def _nothing(plan: Random, _: bytes) -> bytes:
    return plan.choice(
        (b"", b"\n", b"   ", b"{}", b"[]", b"null", b"[[", b'{"a":1}\n', b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf")
    )


def _utf16(_: Random, data: bytes) -> bytes:
    return data.decode("latin-1").encode("utf-16")


TEXT: tuple[Change, ...] = (
    flipped, shortened, _with_hole, _with_noise, _with_odd_bytes, _stuttering, _other_value, _other_value, _other_value,
    _other_column, _other_column, _same_key_twice,
)  # fmt: skip
WHOLE: tuple[Change, ...] = (_nothing, _utf16, flipped, shortened)


def text(plan: Random, data: bytes, place: str) -> bytes:
    """A damaged text file: up to three changes, sometimes packed and the packing damaged; `place` stands for %OUT%."""
    turn = plan.random()
    if turn < 0.1:
        return plan.choice((flipped, shortened, _with_noise))(plan, gzip.compress(data, mtime=0))
    if turn < 0.15:
        return plan.choice(WHOLE)(plan, data)
    for _ in range(plan.randrange(1, 4)):
        data = plan.choice(TEXT)(plan, data)
    data = data.replace(b"%OUT%", place.encode())
    return gzip.compress(data, mtime=0) if turn > 0.95 else data


def binary(plan: Random, data: bytes) -> bytes:
    """A damaged binary file; its first and last bytes more often than the others."""
    kind = plan.randrange(7)
    if kind == 0:
        return shortened(plan, data)
    if kind == 1:
        return plan.choice((b"", bytes(len(data)), data[:8], data + data, plan.randbytes(200), data[::-1]))
    if kind == 2:
        return flipped(plan, data[:300]) + data[300:]
    if kind == 3:
        return data[:-300] + flipped(plan, data[-300:])
    return plan.choice((flipped, _with_hole, _with_noise, _stuttering))(plan, data)


def image(plan: Random, data: bytes, other: bytes) -> bytes:
    """A damaged picture, or something else in its place; `other` is a whole picture of another name."""
    turn = plan.random()
    if turn < 0.6:
        return binary(plan, data)
    if turn < 0.8:
        kinds = [
            file for group in (image_files.KEPT, image_files.REENCODED, image_files.BAD) for file in group.values()
        ]
        return plan.choice(plan.choice(kinds))[0]
    return plan.choice((
        other,
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        image_files.chunk(b"IHDR", bytes(13)),
        gzip.compress(data, mtime=0),
        zipped({"a.jpg": data}),
    ))  # fmt: skip


def archive(plan: Random, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a damaged archive by the ending of their names: a zip, a tar, a packed tar, or parts of a tar."""
    kind = plan.choice(("zip", "deflated", "tar", "pax", "parts", "gz"))
    named = dict(files)
    if plan.random() < 0.3:
        name = plan.choice(list(named))
        odd = plan.choice(
            ("../../escape.jpg", "/tmp/escape.jpg", "a\\..\\b.jpg", "\udcff.jpg", name.upper(), "x" * 300)
        )
        named[odd.encode("utf-8", "replace").decode()] = named.pop(name)
    if kind == "zip":
        whole = zipped(named)
    elif kind == "deflated":
        whole = zipped(named, zipfile.ZIP_DEFLATED)
    else:
        whole = tarred(named, tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT)
    if kind == "gz":
        whole = gzip.compress(whole, mtime=0)
    broken = _near_headers(plan, whole) if plan.random() < 0.6 else binary(plan, whole)
    if kind == "parts":
        parts = cut(broken, _spot(plan, broken), _spot(plan, broken))
        made = {f".tar.{number:02d}": part for number, part in enumerate(parts)}
        if plan.random() < 0.3:
            del made[plan.choice(list(made))]
        return made
    return {{"zip": ".zip", "deflated": ".zip", "gz": ".tar.gz"}.get(kind, ".tar"): broken}


def _near_headers(plan: Random, data: bytes) -> bytes:
    """Most of an archive is data; headers are where a reader can stumble."""
    places = [match.start() for match in re.finditer(rb"PK|ustar", data)] or [0]
    changed = bytearray(data)
    for _ in range(plan.randrange(1, 5)):
        at = min(len(data) - 1, max(0, plan.choice(places) + plan.randrange(-250, 250)))
        changed[at] = plan.choice((plan.randrange(256), 0, 255, ord("7")))
    return bytes(changed)
