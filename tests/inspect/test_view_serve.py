"""`vpt-data view --serve`: rows, filters, sorting and pictures over HTTP, and requests that are refused."""

from __future__ import annotations

import html
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from helpers import end_to_end, small_corpora
from helpers.command import error
from PIL import Image

from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view.browse import Browser
from vpt_data.inspect.view.document import Shown
from vpt_data.inspect.view.serve import Server

Row = dict[str, Any]


def serving(corpus: Path, raw: Path | None) -> Server:
    server = Server(Browser(Shown(open_corpus(corpus), raw)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(reference_corpus: Path, sample_root: Path) -> Iterator[Server]:
    with serving(reference_corpus, sample_root) as running:
        yield running
        running.shutdown()


def get(server: Server, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def ask(server: Server, what: str, **fields: Any) -> Any:
    status, data, _ = get(server, f"/api/{what}?{urlencode(fields, doseq=True)}")
    assert status == 200, data
    return json.loads(data)


def ids(answer: Any) -> list[str]:
    return [item["id"] for item in answer["items"]]


def stored(corpus: Path) -> list[Row]:
    return list(open_corpus(corpus).rows(images=False))


def test_the_page_asks_its_own_server(server: Server) -> None:
    status, data, headers = get(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "connect-src 'self'" in html.unescape(data.decode()) and b'"api":"/api"' in data
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["X-Frame-Options"] == "DENY" and "Server" in headers and "Python" not in headers["Server"]


def test_rows_come_in_the_order_of_the_corpus(server: Server, reference_corpus: Path) -> None:
    due = [row["id"] for row in stored(reference_corpus)]
    found, offset = [], 0
    while part := ids(ask(server, "rows", offset=offset, limit=97)):
        found += part
        offset += len(part)
    assert found == due
    assert ask(server, "rows", limit=1)["total"] == len(due)


def test_items_are_those_of_a_page(server: Server, reference_corpus: Path) -> None:
    row = next(row for row in stored(reference_corpus) if row["looks"] == ["region"])
    item = ask(server, "row", id=row["id"])
    origin = next(origin for origin in end_to_end.origins(reference_corpus) if origin["id"] == row["id"])
    assert item["origin"] == {"file": origin["file"], "row": origin["row"]}
    assert item["repaired"] == origin["repaired"]
    assert item["views"][1]["cells"] == row["views"][1]["cells"]
    assert item["raw"]["question"] == row["question"]
    assert ids(ask(server, "rows", text=row["id"]))[0] == row["id"]


def test_filters(server: Server, reference_corpus: Path) -> None:
    rows, origins = stored(reference_corpus), end_to_end.origins(reference_corpus)
    repaired = {origin["id"]: origin["repaired"] for origin in origins}

    def due(wanted: Any) -> set[str]:
        return {row["id"] for row in rows if wanted(row)}

    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"take": ["gqa", "cub"]}, due(lambda row: row["take"] in {"gqa", "cub"})),
        ({"template": "plain", "expected": "none"}, due(lambda row: row["template"] == "plain")),
        ({"look": "none"}, due(lambda row: not row["looks"])),
        ({"look": ["dino", "region"]}, due(lambda row: row["looks"])),
        ({"expected": "none"}, due(lambda row: row["expected"] is None)),
        ({"repaired": "clipped"}, due(lambda row: "clipped" in repaired[row["id"]])),
        ({"repaired": "none"}, due(lambda row: not repaired[row["id"]])),
        ({"problem": "clipped"}, due(lambda row: "clipped" in repaired[row["id"]])),
        ({"text": "SIGN"}, due(lambda row: "sign" in "\n".join([row["id"], row["question"], *row["answers"]]).lower())),
        ({"take": "nothing"}, set()),
    ]  # fmt: skip
    for query, wanted in cases:
        found = ask(server, "rows", limit=200, **query)
        assert found["total"] == len(wanted), query
        more = ask(server, "rows", limit=200, offset=200, **query) if len(wanted) > 200 else {"items": []}
        assert set(ids(found) + ids(more)) == wanted, query


def test_rows_without_problems_have_no_repairs_either(server: Server) -> None:
    takes = ["gqa", "cub", "textvqa"]
    some = ask(server, "rows", take=takes, limit=200)["items"]
    fine = {item["id"] for item in some if not {problem["kind"] for problem in item["problems"]} - {"missing"}}
    assert 0 < len(fine) < len(some)
    assert set(ids(ask(server, "rows", take=takes, problem="none", limit=200))) == fine


def test_sorting_puts_rows_without_the_number_last(server: Server) -> None:
    for sort, of in (("area", "box_area"), ("iou", "iou"), ("text", "text"), ("problems", "severity")):
        for descending in (0, 1):
            found = ask(server, "rows", sort=sort, descending=descending, take=["gqa", "llava_coco"], limit=200)
            values = [item["numbers"][of] for item in found["items"]]
            known = [value for value in values if value is not None]
            assert values == known + [None] * (len(values) - len(known))
            assert known == sorted(known, reverse=bool(descending))


def test_facets_count_all_rows(server: Server, reference_corpus: Path) -> None:
    found, rows = ask(server, "facets"), stored(reference_corpus)
    assert found["take"] == {take: sum(row["take"] == take for row in rows) for take in found["take"]}
    assert sum(found["take"].values()) == sum(found["expected"].values()) == len(rows)
    assert found["look"]["none"] == sum(not row["looks"] for row in rows)
    for kind, count in {**found["problem"], **found["repaired"]}.items():
        name = "repaired" if kind in found["repaired"] else "problem"
        assert ask(server, "rows", limit=1, **{name: kind})["total"] == count


@pytest.mark.parametrize("embed", [False, True])
def test_pictures_are_those_of_the_row(server: Server, embed: bool, embedded_corpus: Path, sample_root: Path) -> None:
    with serving(embedded_corpus, None) if embed else serving(open_corpus_of(server), sample_root) as running:
        item = ask(running, "rows", take="textvqa", limit=1)["items"][0]
        image, view = item["images"][0], item["views"][1]
        status, data, headers = get(running, image["src"])
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/webp", "no-store")
        whole = Image.open(io.BytesIO(data))
        assert whole.width / whole.height == pytest.approx(image["width"] / image["height"], rel=0.01)
        small = Image.open(io.BytesIO(get(running, image["src"] + "?side=64")[1]))
        assert max(small.size) == 64
        crop = Image.open(io.BytesIO(get(running, view["src"])[1]))
        x0, y0, x1, y1 = view["box"]
        assert crop.size == (x1 - x0, y1 - y0)
        running.shutdown()


def open_corpus_of(server: Server) -> Path:
    return Path(str(server.browser.document().corpora[0].place))


def test_dropped_records(server: Server, reference_corpus: Path) -> None:
    drops = end_to_end.drops(reference_corpus)
    found = ask(server, "dropped", reason="malformed")
    assert found["total"] == sum(drop["reason"] == "malformed" for drop in drops) == len(found["dropped"])
    assert found["dropped"][0]["file"] and found["dropped"][0]["item"] is None
    assert ask(server, "dropped", limit=1)["total"] == len(drops)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/etc/passwd", 404), ("/../../etc/passwd", 404), ("/picture/../../etc/passwd", 404), ("/api", 404),
        ("/picture/0/0/image/99", 404), ("/picture/999/0/image/0", 404), ("/picture/0/999999/view/0", 404),
        ("/picture/0/0/image/-1", 404), ("/picture/0/0/image/0?side=1", 400), ("/picture/0/0/image/0?side=1e9", 400),
        ("/picture/0/0/image/%30", 404), ("/picture/0/0/image/\u0660".encode().decode("latin-1"), 404),
        ("/api/rows?limit=1000000", 400), ("/api/rows?offset=-1", 400), ("/api/rows?where=1", 400),
        ("/api/rows?sort=%3Cscript%3E", 400), ("/api/rows?" + "&".join(["take=a"] * 200), 400),
        ("/api/row?id=x", 404), ("/api/row", 400), ("//evil.example/api/rows", 404), ("/api/row?id=" + "x" * 9000, 404),
        ("http://[", 400),
    ],
)  # fmt: skip
def test_requests_for_anything_else_are_refused(server: Server, path: str, status: int) -> None:
    head, _, body = plain(server, f"GET {path} HTTP/1.1").partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode(), head
    assert set(json.loads(body)) == {"error"}
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"Traceback" not in body and b"root:" not in body


def plain(server: Server, first_line: str) -> bytes:
    """The answer to a request as it is written here; clients would refuse to send some of them."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as link:
        link.sendall(f"{first_line}\r\nHost: 127.0.0.1:{server.server_port}\r\nConnection: close\r\n\r\n".encode())
        return link.makefile("rb").read()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Host": ""}, {"Host": "localhost.evil.example:80"},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_other_hosts_and_origins_are_refused(server: Server, headers: dict[str, str]) -> None:
    for path in ("/", "/api/rows?limit=1", "/picture/0/0/image/0"):
        status, body, _ = get(server, path, **headers)
        assert status == 403 and json.loads(body)["error"].startswith("This server answers ")


def test_its_own_page_is_answered(server: Server) -> None:
    own = {"Host": f"localhost:{server.server_port}", "Origin": f"http://localhost:{server.server_port}"}
    assert get(server, "/api/rows?limit=1", **own, **{"Sec-Fetch-Site": "same-origin"})[0] == 200


@pytest.mark.parametrize(
    "first_line",
    [
        "POST / HTTP/1.1", "PUT /api/rows HTTP/1.1", "DELETE / HTTP/1.1", "HEAD / HTTP/1.1", "OPTIONS / HTTP/1.1",
        "GET", "\x00\x01", "GET / HTTP/9.9",
    ],
)  # fmt: skip
def test_nothing_but_get_is_answered(server: Server, first_line: str) -> None:
    answer = plain(server, first_line)
    assert b" 200 " not in answer.split(b"\r\n")[0] and b"/api" not in answer
    assert ask(server, "rows", limit=1)["items"], "the server goes on"


def test_it_listens_on_this_machine_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_damaged_corpus_is_a_sentence(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    for shard in (corpus / "data").glob("*.parquet"):
        shard.write_bytes(b"PAR1")
    with serving(corpus, None) as running:
        for what in ("rows", "facets", "rows?take=gqa"):
            status, body, _ = get(running, f"/api/{what}")
            assert status == 500 and "not a readable shard" in json.loads(body)["error"]
        running.shutdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command(reference_corpus: Path, number: signal.Signals) -> None:
    # A job in the background of a shell starts with SIGINT ignored, and the tests may be one.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from vpt_data.cli.main import main; main(['view', sys.argv[1], '--serve'])"
    )
    command, pipe = [sys.executable, "-c", code, str(reference_corpus)], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        line = running.stdout.readline()
        assert line.startswith("Page: http://127.0.0.1:") and line.endswith("/  all rows of corpus; Ctrl-C ends it\n")
        running.send_signal(number)
        assert (running.wait(60), running.stderr.read()) == (0, "")


def test_a_port_that_is_taken_is_a_sentence(server: Server, reference_corpus: Path) -> None:
    port = server.server_port
    sentence = error("view", reference_corpus, "--serve", "--port", str(port), code=2)
    assert sentence == f"--port {port}: Address already in use; give another, or none for any free one."
