"""One file over real HTTP, from a server that cuts, stalls, is busy and changes its mind."""

from __future__ import annotations

import email.utils
import hashlib
import json
import time
from pathlib import Path

import pytest
from helpers.fetching import ROWS, SHA, Fetch
from helpers.hostile_server import HostileServer, Reply
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_data.errors import RawError
from vpt_data.upstream.download import http
from vpt_data.upstream.download.http import Got, Patience

# Good days -------------------------------------------------------------------------------------------------


def test_a_file_comes_whole(fetch: Fetch) -> None:
    fetch.serve(ROWS)
    assert fetch(len(ROWS), SHA) == Got(len(ROWS), SHA, '"one"')
    assert fetch.part.read_bytes() == ROWS
    assert fetch.waits == []


def test_a_complete_part_is_not_asked_for_again(fetch: Fetch) -> None:
    fetch.serve(ROWS)
    assert fetch() == fetch()
    assert fetch.ranges() == [None]


def test_a_file_without_a_length_comes_whole(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, unbounded=True))
    assert fetch().sha256 == SHA


def test_a_redirect_on_the_same_machine_is_followed(fetch: Fetch) -> None:
    fetch.server.serve(f"/{fetch.folder.name}/real.jsonl", ROWS)
    fetch.serve(Reply(status=302, headers={"Location": "real.jsonl"}))
    assert fetch().sha256 == SHA


# Cut connections -------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, len(ROWS)), max_size=5))
def test_wherever_the_connection_is_cut_the_file_is_the_same(
    cuts: list[int], server: HostileServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fetch = Fetch(tmp_path_factory.mktemp("cut"), server)
    fetch.serve(*(Reply(ROWS, cut=cut) for cut in cuts), ROWS)
    assert fetch(len(ROWS), SHA).size == len(ROWS)
    assert fetch.part.read_bytes() == ROWS
    assert sum(seen.sent for seen in server.asked(fetch.path())) <= len(ROWS) + 512 * len(cuts)


def test_the_rest_is_asked_for_only_if_it_is_of_the_same_file(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, cut=5000), ROWS)
    fetch()
    first, second = fetch.server.asked(fetch.path())
    assert (first.range, second.range, second.if_range, second.status) == (None, "bytes=5000-", '"one"', 206)
    assert first.sent + second.sent == len(ROWS)
    assert fetch.waits == [1.0]


def test_without_etag_or_with_a_weak_one_the_date_is_the_proof(fetch: Fetch) -> None:
    dated = {"Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT"}
    fetch.serve(Reply(ROWS, cut=5000, etag='W/"one"', headers=dated), Reply(ROWS, ranges="rude", etag='W/"one"'))
    assert fetch().sha256 == SHA
    assert fetch.server.asked(fetch.path())[1].if_range == dated["Last-Modified"]


def test_without_any_proof_the_file_is_fetched_anew(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, cut=5000, etag=None), Reply(ROWS, etag=None))
    assert fetch().sha256 == SHA
    assert fetch.ranges() == [None, None]


def test_a_server_that_ignores_ranges_sends_it_all_again(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, cut=5000), Reply(ROWS, ranges="ignored"))
    assert fetch().sha256 == SHA
    assert fetch.part.read_bytes() == ROWS


def test_another_range_than_the_one_asked_for_is_not_appended(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, cut=5000), Reply(ROWS, ranges="shifted"), ROWS)
    assert fetch().sha256 == SHA
    assert fetch.ranges() == [None, "bytes=5000-", None]


@pytest.mark.parametrize("ranges", ["honest", "rude"])
def test_a_file_that_changes_between_two_attempts_is_never_mixed(fetch: Fetch, ranges: str) -> None:
    changed = ROWS.replace(b"row", b"col")
    fetch.serve(Reply(ROWS, cut=5000), Reply(changed, etag='"two"', ranges=ranges))
    assert fetch() == Got(len(changed), hashlib.sha256(changed).hexdigest(), '"two"')
    assert fetch.part.read_bytes() == changed


def test_a_part_larger_than_the_file_now_is_starts_over(fetch: Fetch) -> None:
    small = ROWS[:3000].rpartition(b"\n")[0]
    fetch.serve(Reply(ROWS, cut=5000), Reply(small, ranges="rude", etag='"two"'))
    assert fetch().sha256 == hashlib.sha256(small).hexdigest()


def test_an_interrupted_run_is_gone_on_with(fetch: Fetch) -> None:
    fetch.serve(ROWS)

    def stop(done: int, total: int) -> None:
        assert total == len(ROWS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        http.fetch(
            f"{fetch.server.url}{fetch.path()}", fetch.part, fetch.name, None, None, patience=Patience(),
            private=fetch.private, progress=stop,
        )  # fmt: skip
    kept = fetch.part.stat().st_size
    assert 0 < kept < len(ROWS)
    assert fetch().sha256 == SHA
    assert fetch.ranges() == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("note", [b"", b"{", b'{"url": "https://elsewhere.example/x", "etag": "e", "synced": 5000}'])
def test_a_part_of_nobody_knows_what_is_not_used(fetch: Fetch, note: bytes) -> None:
    fetch.part.write_bytes(b"x" * 5000)
    fetch.part.with_name(f"{fetch.part.name}.json").write_bytes(note)
    fetch.serve(ROWS)
    assert fetch().sha256 == SHA
    assert fetch.ranges() == [None]


def test_bytes_that_may_not_have_reached_the_disk_are_fetched_again(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, cut=5000), Reply(status=500))
    fetch.fails()
    note = fetch.part.with_name(f"{fetch.part.name}.json")
    assert json.loads(note.read_bytes())["synced"] == fetch.part.stat().st_size
    note.write_text(json.dumps({"url": f"{fetch.server.url}{fetch.path()}", "etag": '"one"', "synced": 4000}))
    fetch.serve(ROWS)
    assert fetch().sha256 == SHA
    assert fetch.ranges()[-1] == "bytes=4000-"


def test_a_link_in_place_of_the_part_is_not_written_through(
    fetch: Fetch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "precious"
    outside.write_text("precious")
    fetch.part.symlink_to(outside)
    note = {"url": f"{fetch.server.url}{fetch.path()}", "etag": '"one"', "synced": 3}
    fetch.part.with_name(f"{fetch.part.name}.json").write_text(json.dumps(note))
    fetch.serve(ROWS)
    assert fetch().sha256 == SHA
    assert outside.read_text() == "precious"


# Servers that are busy, slow or dead -----------------------------------------------------------------------


def test_a_busy_server_is_given_the_time_it_asks_for(fetch: Fetch) -> None:
    soon = email.utils.formatdate(time.time() + 100, usegmt=True)
    fetch.serve(
        Reply(status=429, headers={"Retry-After": "7"}),
        Reply(status=503, headers={"Retry-After": soon}),
        Reply(status=503, headers={"Retry-After": "a while"}),
        Reply(status=408),
        ROWS,
    )
    assert fetch().sha256 == SHA
    assert fetch.waits[0] == 7
    assert 90 < fetch.waits[1] <= 100
    assert fetch.waits[2:] == [4.0, 8.0]


def test_a_server_that_asks_for_too_much_time_ends_it(fetch: Fetch) -> None:
    fetch.serve(Reply(status=429, headers={"Retry-After": "86400"}))
    assert fetch.fails() == (
        "rows.jsonl: URL answered 429 Too Many Requests and asks to come back in 86400 s; run the same command then."
    )
    assert fetch.waits == []


def test_an_endless_error_ends_after_six_attempts(fetch: Fetch) -> None:
    fetch.serve(Reply(status=500))
    assert fetch.fails() == (
        "rows.jsonl: URL answered 500 Internal Server Error (6 times in a row); "
        "run the same command again later to continue."
    )
    assert fetch.waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert fetch.nothing_is_left()


def test_attempts_that_bring_something_new_do_not_count(fetch: Fetch) -> None:
    fetch.serve(*(Reply(ROWS, cut=3000) for _ in range(20)), ROWS)
    assert fetch().sha256 == SHA
    assert len(fetch.waits) == 20


def test_a_silent_server_is_left_and_asked_again(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, stall=2, stall_after=5000), ROWS)
    assert fetch(timeout=0.3).sha256 == SHA
    assert fetch.ranges() == [None, "bytes=5000-"]


def test_a_server_that_stays_silent_is_named(fetch: Fetch) -> None:
    fetch.serve(Reply(ROWS, stall=1, stall_after=5000), Reply(ROWS, stall=1, stall_after=0, ranges="ignored"))
    assert "URL sent nothing for 0.1 s (6 times in a row); run the same command" in fetch.fails(timeout=0.1)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with HostileServer() as gone:
        url = f"{gone.url}/rows.jsonl"
    with pytest.raises(
        RawError, match=r"^rows.jsonl: \S+ cannot be reached, or broke the connection at once \(.+\) \(6"
    ):
        patience = Patience(sleep=lambda _: None)
        http.fetch(url, tmp_path / "p", "rows.jsonl", None, None, patience=patience, private={"127.0.0.1"})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "rows.jsonl: URL answered 404 Not Found; expected the file."),
        (403, "rows.jsonl: URL answered 403, access refused; see the owner's page for terms."),
        (204, "rows.jsonl: URL answered 204 No Content; expected the file."),
        (304, "rows.jsonl: URL answered 304 Not Modified; expected the file."),
    ],
)
def test_other_answers_are_final(fetch: Fetch, status: int, said: str) -> None:
    fetch.serve(Reply(status=status))
    assert fetch.fails() == said
    assert fetch.waits == []
