"""`python -m trainer.evaluate --server`: over real HTTP, with the looks at regions played here."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from answer_files import GQA, POPE, evaluate
from click.testing import Result
from helpers.chat_server import Act, ChatServer, body, replies, says, silence, status
from PIL import Image, ImageChops

from trainer.evaluation import items
from trainer.evaluation.asking import server as asking
from trainer.evaluation.asking.questions import Protocol, decoding, made_with, whole_texts
from trainer.evaluation.asking.server import KEY, Player
from trainer.evaluation.endpoint import Endpoint, Server
from trainer.evaluation.predictions import Prediction
from trainer.generation.dialog import question
from trainer.packages import versions
from vpt_data import geometry
from vpt_data.corpus.reader import open_corpus
from vpt_data.dialogue.tokens import grid
from vpt_data.dialogue.tokens.reencode import action_turn
from vpt_data.images import views
from vpt_data.images.root import ImageRoot

#: 7 x 5 cells of 8 pixels: every pixel has a colour of its own.
PICTURE = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize((80, 61)) for turn in (0, 90, 180)])


def region(*cells: int) -> str:
    text: str = grid.encode([cells], 8)[0].as_py()
    return text


def pictures(message: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a turn, as the server sees them."""
    found = []
    for part in message["content"]:
        if part["type"] == "image_url":
            kind, _, data = part["image_url"]["url"].partition(";base64,")
            assert kind == "data:image/png"
            found.append(Image.open(io.BytesIO(base64.b64decode(data))))
    return found


def same(one: Image.Image, other: Image.Image) -> bool:
    return (one.size, one.mode) == (other.size, other.mode) and ImageChops.difference(one, other).getbbox() is None


def texts(message: dict[str, Any]) -> list[str]:
    """The parts of a turn, `<image>` for a picture."""
    if isinstance(message["content"], str):
        return [message["content"]]
    return [part.get("text", "<image>") for part in message["content"]]


class Played:
    """What became of one row, what the server was asked, and the seconds that were waited."""

    def __init__(self, one: Prediction, asked: list[dict[str, Any]], waits: list[float]) -> None:
        self.one, self.asked, self.waits = one, asked, waits


def played(
    *acts: Act, protocol: Protocol = "free", timeout: float = 10, longest: int | None = None, **how: Any
) -> Played:
    waits = list[float]()
    with ChatServer(*acts) as server:
        where = Server("The model", "it", url=server.url, key="any")
        with closing(Endpoint("vpt", where, 64, timeout, 4, waits.append)) as endpoint:
            options = {"max_new_tokens": 64} | how
            player = Player(endpoint, decoding(protocol, **options), {"question": 8}, longest)
            return Played(player.play(question(PICTURE, "What?")), server.asked, waits)


def test_a_region_is_answered_with_its_crop() -> None:
    done = played(says(region(1, 2, 3, 4)), says("A dog.<|im_end|>"))
    assert (done.one.turns, done.one.ended, done.one.fault) == ((region(1, 2, 3, 4), "A dog."), "end_of_turn", None)
    first, second = (asked["messages"] for asked in done.asked)
    assert [texts(turn) for turn in first] == [["<image>", "\nWhat?"]]
    assert second[:1] == first
    assert [(turn["role"], texts(turn)) for turn in second[1:]] == [
        ("assistant", [region(1, 2, 3, 4)]),
        ("user", ["<image>"]),
    ]
    assert same(pictures(first[0])[0], PICTURE)
    assert same(pictures(second[2])[0], views.pixels(PICTURE, (10, 15, 40, 38)))


def test_several_regions_grow_and_shrink_as_asked() -> None:
    done = played(says(region(1, 2, 3, 4) + region(0, 0, 7, 7)), says("A dog."), expand=1, longest=40)
    [whole], crops = pictures(done.asked[0]["messages"][0]), done.asked[1]["messages"][2]
    assert texts(crops) == ["Region 0: ", "<image>", "\nRegion 1: ", "<image>", "\n"]
    assert [image.size for image in pictures(crops)] == [(40, 30), (40, 31)]
    assert whole.size == (40, 31)


REPLIES: dict[str, tuple[list[Act], str, str | None, tuple[str, ...]]] = {
    "prose": ([says("It is a dog, I think.")], "end_of_turn", None, ("It is a dog, I think.",)),
    "nothing": ([says("")], "end_of_turn", None, ("",)),
    "a cut answer": ([says("It is", "length")], "token_limit", None, ("It is",)),
    "a reversed region": ([says(region(3, 2, 1, 4))], "invalid_look", None, (region(3, 2, 1, 4),)),
    "a call": (
        [says(action_turn("dino"))],
        "fault",
        "look_not_served: the model asked for dino, which a server does not have",
        (action_turn("dino"),),
    ),
    "regions without end": ([says(region(1, 2, 3, 4))] * 3, "cap", None, (region(1, 2, 3, 4),) * 3),
    "as many tokens as may be": (
        [says(region(1, 2, 3, 4), tokens=64)],
        "token_limit",
        None,
        (region(1, 2, 3, 4),),
    ),
    "no text": ([says(None)], "fault", "refused: the reply has no text", ()),
    "a reply that is held back": (
        [says("It", "content_filter")],
        "fault",
        "refused: the server holds back what the model said (content_filter)",
        (),
    ),
    "a refusal": ([status(400)], "fault", 'refused: HTTP 400: {"error": {"message": "status 400"}}', ()),
    "a refusal of the crop": (
        [says(region(1, 2, 3, 4)), status(400)],
        "fault",
        'refused: HTTP 400: {"error": {"message": "status 400"}}',
        (region(1, 2, 3, 4),),
    ),
    "a server in trouble": (
        [status(500)] * 4,
        "fault",
        'no_reply: HTTP 500: {"error": {"message": "status 500"}} (4 attempts)',
        (),
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_how_a_row_ends(name: str) -> None:
    acts, ended, fault, turns = REPLIES[name]
    one = played(*acts).one
    assert (one.ended, one.fault, one.turns) == (ended, fault, turns)
    assert one.final == (turns[-1] if ended == "end_of_turn" else "" if ended == "cap" else None)


PASSING = {
    "a busy server": status(429, Retry_After="7"),
    "half a body": body('{"choices": [{"mess', length=500),
    "a page": body("<html>Please log in</html>", "text/html"),
    "another type": body("It is a dog.", "text/plain"),
    "silence": silence,
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again(name: str) -> None:
    done = played(PASSING[name], says("A dog."), timeout=0.3 if name == "silence" else 10)
    assert (done.one.turns, done.one.fault) == (("A dog.",), None)
    assert done.waits == [7.0 if name == "a busy server" else 1.0]


def test_what_is_sent_beside_the_messages() -> None:
    done = played(says(region(0, 0, 0, 0), tokens=6), says("A dog.", tokens=3))
    first, second = ({key: one[key] for key in one if key != "messages"} for one in done.asked)
    assert first == {"model": "vpt", "temperature": 0, "max_tokens": 64}
    assert second == first | {"max_tokens": 58}
    assert done.one.tokens == 9


def test_direct_rows_are_shown_no_crop_and_paper_reads_any_order() -> None:
    direct = played(says(region(1, 2, 3, 4)), protocol="direct")
    assert (direct.one.ended, direct.one.final) == ("cap", "")
    paper = played(says(region(3, 4, 1, 2)), says(region(1, 2, 3, 4)), protocol="paper")
    assert (paper.one.ended, len(paper.one.turns)) == ("end_of_turn", 2)
    assert same(pictures(paper.asked[1]["messages"][2])[0], views.pixels(PICTURE, (10, 15, 40, 38)))
    assert played(says(region(1, 2, 3, 4).replace("y_", "x_")), protocol="paper").one.ended == "invalid_look"
    both = played(says(region(1, 2, 3, 4) + action_turn("dino")), protocol="paper").one
    assert (both.ended, both.turns) == ("end_of_turn", (region(1, 2, 3, 4) + action_turn("dino"),))


class Model:
    """A model that looks at the right region and then gives the right answer, and keeps the crops that it was shown."""

    def __init__(self, corpus: Path, asked: items.Items, root: Path) -> None:
        opened, raw = open_corpus(str(corpus)), ImageRoot(root)
        self.whole = {row["id"]: views.image(row, 0, raw) for split in (GQA, POPE) for row in opened.rows(split)}
        said = whole_texts(opened, asked.by_split(self.whole))
        self.answers = dict(zip(asked.texts("id"), asked.texts("answers"), strict=True))
        self.cells, self.crops = asked.gold(8), dict[str, Image.Image]()
        self.ids = {(said[name], views.pixels(image).tobytes()): name for name, image in self.whole.items()}

    def __call__(self, request: dict[str, Any]) -> str:
        assert request["skip_special_tokens"] is False
        first, *others = request["messages"]
        name = self.ids["".join(texts(first)), pictures(first)[0].tobytes()]
        if name in self.cells and not others:
            return region(*self.cells[name])
        if others:
            [self.crops[name]] = pictures(others[-1])
        return str(self.answers[name][0])


@contextmanager
def serving(patch: pytest.MonkeyPatch, *acts: Act, always: Act) -> Iterator[ChatServer]:
    """A server, for whose next attempt nobody waits."""
    patch.setattr(asking, "Endpoint", partial(Endpoint, attempts=2, wait=lambda seconds: None))
    with ChatServer(*acts, always=always) as server:
        yield server


def run(server: ChatServer, corpus: Path, root: Path, out: Path, *more: str) -> Result:
    url = server.url.replace("://", "://me:secret@")
    given = ["--server", url, "--model", "org/vpt-2b", "--data", corpus, "--raw", root, "--out", out]
    return evaluate(*given, "--split", GQA, "--split", POPE, "--limit", "6", *more)


def test_a_model_behind_a_server_is_scored(
    corpus: Path, asked: items.Items, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right regions get the right crops, pixel by pixel, and right answers score 1."""
    model, out = Model(corpus, asked, sample_root), tmp_path / "out"
    with serving(monkeypatch, always=replies(model)) as server:
        done = run(server, corpus, sample_root, out)
        assert done.exit_code == 0, done.output
        assert f"asked: {6 + 6} rows in " in done.stderr
        again = run(server, corpus, sample_root, out)
        assert (again.exit_code, "asked: " in again.stderr) == (0, False)
    found = json.loads((out / "results.json").read_text())
    assert all(split["figures"]["score"]["value"] == 1.0 for split in found["splits"].values())
    assert found["splits"][GQA]["regions"]["iou_cells"]["value"] == 1.0
    stated = (out / "asking.json").read_text()
    assert "secret" not in stated
    assert found["about"]["model"] == {"name": "org/vpt-2b", "server": server.url + "/"}
    assert json.loads(stated)["protocol"] == "prompted"
    assert json.loads(stated)["questions"] == found["about"]["questions"] == made_with()
    assert found["about"]["asked_with"] == versions("openai", "Pillow")
    assert len(server.asked) == 2 * 6 + found["splits"][POPE]["rows"]
    assert len(model.crops) == 6
    for name, crop in model.crops.items():
        [box] = geometry.crop([model.cells[name]], [model.whole[name].size], 8).tolist()
        assert same(crop, views.pixels(model.whole[name], tuple(box)))


def test_a_server_that_is_gone_ends_the_command_and_what_was_answered_stays(
    corpus: Path, asked: items.Items, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = Model(corpus, asked, sample_root), tmp_path / "out"
    with serving(monkeypatch, replies(model), always=status(503)) as server:
        done = run(server, corpus, sample_root, out, "--batch", "1")
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1] == (
            f"Error: The model org/vpt-2b at {server.url}/ gave no reply to 8 rows in a row (no_reply: HTTP 503: "
            '{"error": {"message": "status 503"}} (2 attempts)); see to the server, and the same command goes on '
            "from what is written."
        )
        assert not (out / "results.json").exists()
        server.always = replies(model)
        assert run(server, corpus, sample_root, out).exit_code == 0
    rows = pq.read_table(out / "records.parquet").to_pylist()
    assert all(row["ended"] == "end_of_turn" and row["score"] == 1.0 for row in rows)
    assert (out / "answers.jsonl").read_bytes().count(b"\n") == len(rows)


def test_rows_that_a_server_refuses_end_with_a_fault_and_never_the_command(
    corpus: Path, asked: items.Items, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also many one after the other, and where the same command asks nothing but these rows."""
    answering = replies(Model(corpus, asked, sample_root))
    refusing = [status(400), says(None), says("It", "content_filter")] * 3
    with serving(monkeypatch, *refusing, always=answering) as server:
        done = run(server, corpus, sample_root, tmp_path / "out", "--batch", "1")
        assert done.exit_code == 0, done.output
        assert "9 of 12 rows could not be asked and score 0: refused 9" in done.stderr
        server.always = status(400)
        again = run(server, corpus, sample_root, tmp_path / "out")
        assert (again.exit_code, "asked: 9 rows in " in again.stderr) == (0, True)
        server.always = answering
        assert "could not be asked" not in run(server, corpus, sample_root, tmp_path / "out").stderr


def test_an_image_that_is_missing_is_a_fault_of_its_row(
    corpus: Path, asked: items.Items, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(sample_root, raw)
    lost = next(iter(open_corpus(str(corpus)).rows(GQA)))
    (raw / lost["images"][0]["path"]).unlink()
    with serving(monkeypatch, always=replies(Model(corpus, asked, sample_root))) as server:
        done = run(server, corpus, raw, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "rows could not be asked and score 0: missing_image" in done.stderr
    [row, *_] = pq.read_table(tmp_path / "out" / "records.parquet").to_pylist()
    assert (row["id"], row["ended"], row["score"]) == (lost["id"], "fault", 0.0)


def test_wrong_usage(corpus: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*arguments: str | Path) -> str:
        done = evaluate(*arguments, "--data", corpus, "--out", tmp_path / "out")
        assert (done.exit_code, done.stdout) == (2, ""), done.output
        return done.stderr.splitlines()[-1]

    both = ["--server", "http://127.0.0.1:9/v1", "--model", "m"]
    assert error(*both[:2]) == "Error: Give --server URL together with --model NAME."
    assert error(*both, "--checkpoint", "x") == (
        "Error: Give one of --predictions, --checkpoint, --weights and --server."
    )
    assert error(*both, "--intervene", "crop=none") == (
        "Error: --intervene needs a model of ours; give --checkpoint or --weights."
    )
    assert error(*both, "--raw", tmp_path / "no") == (
        f"Error: {tmp_path / 'no'}: no such folder; give the raw root that holds the images of these rows."
    )
    with serving(monkeypatch, always=status(404)) as server:
        assert error("--server", server.url, "--model", "m", "--raw", sample_root) == (
            f"Error: The model m at {server.url}/ cannot be asked (HTTP 404: "
            f'{{"error": {{"message": "status 404"}}}}); check --server, --model and ${KEY}.'
        )
