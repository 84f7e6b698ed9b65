"""A model behind a server answers the items: any that reads images by the interface of OpenAI, such as vLLM and SGLang.

Looks at regions are played here: where a reply has a region, its crop is the next user turn, as in training. A look
through another encoder needs a model of the trainer; over a server its row ends with a fault.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import click
from PIL import Image

from trainer.evaluation import folder
from trainer.evaluation.asking import questions
from trainer.evaluation.asking.questions import Protocol
from trainer.evaluation.endpoint import Endpoint, NoReply, Refused, Reply, Server
from trainer.evaluation.items import Items
from trainer.evaluation.metrics import looks
from trainer.evaluation.metrics.looks import Asked
from trainer.evaluation.predictions import ENDS, Prediction
from trainer.generation import paper
from trainer.generation.dialog import Decoding, Ended, Row
from trainer.packages import versions
from vpt_data import geometry
from vpt_data.cli.output import Bar
from vpt_data.corpus.reader import Corpus
from vpt_data.dialogue.prompts import crops_turn
from vpt_data.dialogue.tokens import IMAGE
from vpt_data.errors import CorpusError, RawError, VptDataError
from vpt_data.images import views
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason

#: The key of the server; not that of the judge, which another party may not see.
KEY: Final = "VPT_SERVER_KEY"
#: Rows without a reply, one after the other, from which on the server counts as gone.
GONE: Final = 8
#: Causes of faults.
NO_REPLY: Final = "no_reply"
REFUSED: Final = "refused"
LOOK_NOT_SERVED: Final = "look_not_served"

Message: TypeAlias = dict[str, Any]


class Served(NamedTuple):
    """The model, and how it is asked.

    url      the address of the interface, such as `http://localhost:8000/v1`
    longest  longer side in pixels of what is sent at most; None: pictures are sent as they are
    batch    requests at a time
    """

    url: str
    model: str
    raw: Path | None
    protocol: Protocol
    max_new_tokens: int
    expand: int
    longest: int | None
    batch: int

    @property
    def name(self) -> str:
        """What the folder of its results is called."""
        return self.model.rstrip("/").rpartition("/")[2]


def ask(corpus: Corpus, asked: Items, served: Served, out: Path) -> tuple[list[Prediction], dict[str, Any]]:
    """What the model says to the items, and the facts of the evaluation; goes on with the answers in `out`.

    Raises UsageError where the server would refuse every request, and VptDataError where it no longer replies.
    """
    how = questions.decoding(served.protocol, max_new_tokens=served.max_new_tokens, expand=served.expand)
    with closing(_endpoint(served, how)) as endpoint:
        about = {
            "model": {"name": served.model, "server": endpoint.url},
            "corpus": corpus.manifest.fingerprint,
            "questions": questions.made_with(),
            "protocol": served.protocol,
            "generation": asdict(how),
            "pixels": served.longest,
        }
        answers = folder.Answers(out, about)
        ids = asked.texts("id")
        wanted = set(ids) - {one.id for one in answers.read()}
        grids = dict(zip(ids, asked.texts("k"), strict=True))
        player = Player(endpoint, how, grids, served.longest, ImageRoot(served.raw) if served.raw else None)
        rows = questions.questions(corpus, asked.by_split(wanted), served.protocol)
        begin = time.perf_counter()
        with answers.adding() as file, Bar("asked") as bar:
            for number, one in enumerate(replies(player, rows, served.batch), 1):
                answers.add(file, one)
                bar(number, len(wanted))
    if wanted:
        seconds = time.perf_counter() - begin
        rate = f"{len(wanted):,} rows in {seconds:.1f} s ({len(wanted) / seconds:.1f} rows a second)"
        click.echo(f"asked: {rate}", err=True)
    by_id = {one.id: one for one in answers.read()}
    return [by_id[name] for name in ids], about | {"asked_with": versions("openai", "Pillow")}


def _endpoint(served: Served, how: Decoding) -> Endpoint:
    key = os.environ.get(KEY) or "none"
    server = Server("The model", f"--server, --model and ${KEY}", url=served.url, key=key)
    # A tokenizer may hold region tokens as special ones, which servers leave out of the text. Those of OpenAI do not
    # know this, and a model that may not look does not need it.
    more = {"skip_special_tokens": False} if how.max_actions else None
    return Endpoint(served.model, server, how.max_new_tokens, timeout=120.0, more=more)


def replies(player: Player, rows: Iterable[Row], batch: int) -> Iterator[Prediction]:
    """The predictions of rows in their order, `batch` at a time.

    A row that gets no reply ends with a fault; VptDataError where no row does, or many one after the other. A row that
    the server refuses ends with a fault as well, and shows that the server is there.
    """
    source, lost, number = iter(rows), 0, 0
    pool = ThreadPoolExecutor(batch)
    try:
        waiting = deque(pool.submit(player.play, row) for row in islice(source, 2 * batch))
        while waiting:
            one = waiting.popleft().result()
            yield one
            number, lost = number + 1, lost + 1 if (one.fault or "").startswith(NO_REPLY) else 0
            if lost == GONE or (lost == number and not waiting):
                raise VptDataError(
                    f"The model {player.endpoint.model} at {player.endpoint.url} gave no reply to {lost} rows in a row "
                    f"({one.fault}); see to the server, and the same command goes on from what is written."
                )
            waiting.extend(pool.submit(player.play, row) for row in islice(source, 1))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Player:
    """Plays the dialogue of a row with a model.

    grids    id of a row -> cells a side of the grid that its region tokens are read on
    longest  longer side in pixels of what is sent at most; None: pictures are sent as they are
    raw      the raw root of images that are not in the shards
    """

    endpoint: Endpoint
    how: Decoding
    grids: Mapping[str, int]
    longest: int | None = None
    raw: ImageRoot | None = None

    def play(self, row: Row) -> Prediction:
        """What the model makes of a row; what keeps it from an answer is its fault."""
        begin, said, fault = time.perf_counter(), list[Reply](), None
        try:
            ended = self._play(row, said)
        except Refused as error:
            fault = f"{REFUSED}: {error}"
        except NoReply as error:
            fault = f"{NO_REPLY}: {error}"
        except _NotServed as error:
            fault = f"{LOOK_NOT_SERVED}: {error}"
        except RawError as error:
            fault = f"{Reason.MISSING_IMAGE}: {error}"
        except CorpusError as error:
            fault = f"{Reason.BAD_IMAGE}: {error}"
        return Prediction(
            id=row["id"],
            turns=tuple(one.text for one in said),
            ended=ended if fault is None else Ended.FAULT,
            fault=fault,
            tokens=sum(one.tokens or 0 for one in said) or None,
            seconds=time.perf_counter() - begin,
        )

    def _play(self, row: Row, said: list[Reply]) -> Ended:
        """Turn after turn into `said`, until the model looks no more."""
        images = [views.image(row, number, self.raw) for number in range(len(row["images"]))]
        messages = self._messages({**row, "images": images})
        actions = 0
        while True:
            left = self.how.max_new_tokens - sum(one.tokens or 0 for one in said)
            if left < 1:
                return Ended.TOKEN_LIMIT
            reply = self.endpoint.say(messages, left)
            if reply.ended == "content_filter":
                raise Refused("the server holds back what the model said (content_filter)")
            said.append(reply._replace(text=ENDS.sub("", reply.text)))
            if reply.ended == "length":
                return Ended.TOKEN_LIMIT
            found = self._looks(said[-1].text, self.grids[row["id"]], actions)
            if found.triggered in {"none", "invalid"}:
                return Ended.INVALID_LOOK if found.invalid else Ended.END_OF_TURN
            if actions >= self.how.max_actions:
                return Ended.CAP
            if found.encoders:
                raise _NotServed(f"the model asked for {found.encoders[0]}, which a server does not have")
            messages += [{"role": "assistant", "content": said[-1].text}, self._shown(images[0], row, found.cells)]
            actions += 1

    def _looks(self, text: str, k: int, actions: int) -> Asked:
        if not self.how.as_published:
            return looks.asked([text], k)
        turn = paper.read(text, k)
        if actions >= self.how.max_actions or turn.kind is None:
            return Asked((), (), Counter())
        if turn.failed:
            return Asked((), (), Counter({paper.CROP_FAILED: turn.failed}))
        return Asked(turn.cells, turn.encoders, Counter())

    def _messages(self, row: Row) -> list[Message]:
        if other := next((view["encoder"] for view in row["views"] if view["encoder"] != "vlm"), None):
            raise _NotServed(f"the row shows an image through {other}, which a server does not have")
        shown = views.shown(row)
        return [{"role": one["role"], "content": self._content(one["content"], shown)} for one in row["messages"]]

    def _shown(self, image: Image.Image, row: Row, cells: Sequence[tuple[int, int, int, int]]) -> Message:
        """The user turn with the crops of regions."""
        boxes = geometry.crop(cells, [image.size] * len(cells), self.grids[row["id"]], self.how.expand).tolist()
        crops = (views.pixels(image, (x0, y0, x1, y1)) for x0, y0, x1, y1 in boxes)
        return {"role": "user", "content": self._content(crops_turn(len(cells)), crops)}

    def _content(self, text: str, shown: Iterator[Image.Image]) -> str | list[dict[str, Any]]:
        """A turn in the parts of the interface: text, and the next pictures where `<image>` stands."""
        first, *others = text.split(IMAGE)
        if not others:
            return text
        parts: list[dict[str, Any]] = [{"type": "text", "text": first}]
        for piece in others:
            parts += [
                {"type": "image_url", "image_url": {"url": self._url(next(shown))}},
                {"type": "text", "text": piece},
            ]
        return [part for part in parts if part.get("text") != ""]

    def _url(self, image: Image.Image) -> str:
        """A picture as PNG, which keeps every pixel; smaller ones are left as they are."""
        if self.longest is not None:
            image.thumbnail((self.longest, self.longest), Image.Resampling.BICUBIC, reducing_gap=None)
        file = io.BytesIO()
        image.save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class _NotServed(Exception):
    """A look that needs a model of the trainer."""
