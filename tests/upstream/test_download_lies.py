"""Servers that lie: about lengths, with pages for files, with redirects; and disks that are too small."""

from __future__ import annotations

import io
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from helpers.fetching import ROWS, SHA, Fetch
from helpers.hostile_server import HostileServer, Reply

from vpt_data.errors import OutputError, RawError, UsageError
from vpt_data.upstream.download import sniff
from vpt_data.upstream.download.addresses import check_url, resolved

PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"


# Lies ------------------------------------------------------------------------------------------------------


def test_a_length_that_is_too_large_is_never_reached(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, claim=len(ROWS) + 100))
    assert "(6 times in a row)" in fetch.fails()
    assert not (fetch.folder / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "odd"), [("rows.jsonl", "JSON that stops in the middle"), ("x.zip", "a zip file without its end")]
)
def test_a_length_that_is_too_small_shows_at_the_end_of_the_file(
    tmp_path: Path, server: HostileServer, name: str, odd: str
) -> None:
    data = ROWS if name == "rows.jsonl" else archive()
    fetch = Fetch(tmp_path, server, name)
    fetch.serve(Reply(data, claim=len(data) - 40))
    assert fetch.fails() == f"{name}: URL sent {odd} instead of the file; nothing was kept."
    assert fetch.nothing_is_left()


def test_a_length_other_than_the_manifests_is_refused_before_a_byte_is_kept(fetch: Fetch) -> None:
    fetch.serve(ROWS)
    assert fetch.fails(size=len(ROWS) - 1) == (
        f"rows.jsonl: URL announces {len(ROWS):,} bytes, the manifest says {len(ROWS) - 1:,}; "
        "the owner has changed the file, or this is another one."
    )
    assert fetch.nothing_is_left()


@pytest.mark.parametrize("off", [-100, 100])
def test_a_file_without_a_length_is_counted(fetch: Fetch, off: int) -> None:
    fetch.serve(Reply(ROWS, unbounded=True))
    said = fetch.fails(size=len(ROWS) + off)
    assert said == f"rows.jsonl: URL sent {len(ROWS):,} bytes, the manifest says {len(ROWS) + off:,}; nothing was kept."
    assert fetch.nothing_is_left()


def test_an_endless_body_is_cut_off_where_it_passes_the_size(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS * 100, unbounded=True))
    assert "the manifest says 5,000; nothing was kept." in fetch.fails(size=5000)
    time.sleep(0.05)
    assert fetch.server.asked(fetch.path())[0].sent < 100 * len(ROWS)


def test_other_bytes_than_the_checksums_are_refused(fetch: Fetch) -> None:
    fetch.serve(ROWS)
    assert fetch.fails(sha256="0" * 64) == (
        f"rows.jsonl: URL sent bytes with sha256 {SHA}, the manifest says {'0' * 64}; nothing was kept."
    )
    assert fetch.nothing_is_left()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("images/1.jpg", bytes(range(256)) * 40)
    return out.getvalue()


@pytest.mark.parametrize("name", ["x.zip", "rows.jsonl", "x.json", "x.tar", "x.tgz", "cot_images_00"])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_instead_of_the_file_is_refused(tmp_path: Path, server: HostileServer, name: str, kind: str) -> None:
    fetch = Fetch(tmp_path, server, name)
    fetch.serve(Reply(b"\n" + PAGE, headers={"Content-Type": kind}))
    assert fetch.fails() == f"{name}: URL sent a web page ({kind}) instead of the file; nothing was kept."
    assert fetch.nothing_is_left()


@pytest.mark.parametrize(
    ("name", "data", "kind", "odd"),
    [
        ("x.zip", b"Quota exceeded", "", "something else that begins with b'Quota exceeded'"),
        ("x.tgz", archive(), "", "something else that begins with b'PK"),
        ("x.tar", b"\0" * 1024, "", r"something else that begins with b'\x00"),
        ("x.json", b'"error"', "", "something else that begins with b'\"error\"'"),
        ("x.jsonl", b"[1]", "", "something else that begins with b'[1]'"),
        ("x.zip", b"<?xml version='1.0'?><Error/>", "", "markup that begins with <"),
        ("x.bin", b"", "", "nothing at all"),
        ("x.bin", b"log in, please", "text/html", "a web page (text/html)"),
    ],
)
def test_what_is_wrong_with_the_first_bytes(name: str, data: bytes, kind: str, odd: str) -> None:
    assert (sniff.wrong_head(name, data, kind) or "").startswith(odd)


def test_an_empty_file_is_refused(fetch: Fetch) -> None:
    fetch.serve(b"")
    assert fetch.fails() == "rows.jsonl: URL sent nothing at all instead of the file; nothing was kept."


# Redirects and addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://example.com/x", "which is not https"),
        ("ftp://example.com/x", "which is not https"),
        ("file:/etc/passwd", "which is not https"),
        ("https://10.0.0.1/x", "a private address"),
        ("https://169.254.169.254/latest/meta-data", "a private address"),
        ("https://[::ffff:192.168.1.1]/x", "a private address"),
    ],
)
def test_a_redirect_may_not_lead_astray(fetch: Fetch, target: str, why: str) -> None:
    fetch.serve(Reply(status=302, headers={"Location": target}))
    assert fetch.fails() == f"URL: redirects to {target}, {why}; expected the file."
    assert fetch.waits == []
    assert fetch.nothing_is_left()


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1/x", "http://localhost/x", "https://[::1]/x", "https://2130706433/x"]
)
def test_the_web_may_not_redirect_to_this_machine(target: str) -> None:
    with pytest.raises(RawError, match=r"not https|a private address"):
        resolved("https://example.com/x", target, {"localhost", "127.0.0.1"})


def test_a_redirect_in_circles_ends(fetch: Fetch) -> None:
    url = fetch.serve(Reply(status=301, headers={"Location": fetch.path()}))
    assert fetch.fails() == f"URL: redirects more than 10 times, last to {url}; expected the file.".replace(url, "URL")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/x", "http://example.com/x: plain http can be tampered with on the way; write https://..."),
        ("ftp://example.com/x", "'ftp://example.com/x': not a web address; write https://..."),
        ("https:///x", "'https:///x': not a web address; write https://..."),
        ("https://example.com:port/x", "'https://example.com:port/x': not an address ("),
        ("https://me:secret@example.com/x", "https://example.com/...: an address with a name or password in it"),
    ],
)
def test_only_safe_addresses_are_asked(url: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_url(url)
    assert str(raised.value).startswith(said)
    assert "secret" not in str(raised.value)


# The disk --------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_said_before_a_byte_comes(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(fetch.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    fetch.serve(ROWS)
    assert fetch.fails(OutputError) == (
        f"rows.jsonl: needs {len(ROWS):,} more bytes, and {fetch.folder} has 1,000 free; "
        "free some space and run the same command again."
    )
    assert fetch.nothing_is_left()
