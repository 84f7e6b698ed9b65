"""Rows in, records out: `answer` is the one way to ask a model.

Threads decode and encode rows ahead (Pillow and the tokenizer let other threads run meanwhile). Of the rows that are
ready, those of like length share a batch; records come in the order of the rows.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.data.encode import RowEncoder, Unfit
from trainer.data.loader import fetched
from trainer.generation.dialog import Decoding, Ended, Fault, Record, Row
from trainer.generation.policy import Dialog, Policy
from trainer.generation.rounds import Rounds
from trainer.model.vpt import VPTModel
from vpt_data.errors import CorpusError, UsageError
from vpt_data.images import views
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason

_BATCHES = 4  # whose rows are sorted by length together


def answer(
    model: VPTModel,
    encoder: RowEncoder,
    rows: Iterable[Row],
    how: Decoding | None = None,
    policy: Policy | None = None,
    *,
    batch: int = 16,
    workers: int = 2,
    raw: Path | None = None,
) -> Iterator[Record]:
    """A record for each row that ends with a question, in their order; each is what it would be alone, up to rounding.

    batch    rows under generation at once
    workers  threads that decode images and cut pictures
    raw      raw root of rows whose images are not in the shards

    A row that cannot be asked gives a record with a fault. Raises UsageError for what concerns all rows: tokens or a
    grid that the model does not have, a `force` that it does not know, a raw root that is missing.
    """
    if batch < 1:
        raise UsageError(f"batch is {batch}, expected at least 1 row")
    how, policy = how or Decoding(), policy or Policy()
    if raw is not None and not raw.is_dir():
        raise UsageError(f"{raw}: no such folder; give the raw root that holds the images of these rows.")
    images = ImageRoot(raw) if raw else None
    pool, source = ThreadPoolExecutor(max(1, workers)), iter(rows)
    waiting: deque[Future[Dialog]] = deque()
    try:
        while True:
            # While a model is busy with some rows, as many are made ready.
            some = islice(source, 2 * _BATCHES * batch - len(waiting))
            waiting.extend([pool.submit(prepared, encoder, row, how, images) for row in some])
            window = [waiting.popleft().result() for _ in range(min(len(waiting), _BATCHES * batch))]
            if not window:
                return
            _run(model, encoder, window, how, policy, batch)
            yield from map(_record, window)
    finally:
        pool.shutdown(cancel_futures=True)


def prepared(encoder: RowEncoder, row: Row, how: Decoding, raw: ImageRoot | None) -> Dialog:
    """A row ready to be asked, or with its fault."""
    dialog = Dialog(row, dice=random.Random(f"{how.seed}\0{row['id']}"))
    try:
        if not row["messages"] or row["messages"][-1]["role"] == "assistant":
            raise Unfit(Reason.MALFORMED, "the row does not end with a question; cut it with `before_answer`")
        row = {**row, "images": [_stored(*each, raw) for each in zip(row["images"], row["image_info"], strict=False)]}
        dialog.images = [views.image(row, number, None) for number in range(len(row["images"]))]
        sizes = [{"width": image.width, "height": image.height} for image in dialog.images]
        seen = {**row, "images": dialog.images, "image_info": sizes}
        dialog.prompt = encoder.encode(seen, prompt=True)
        shown = zip(dialog.prompt.slots, views.shown(seen), strict=True)
        dialog.pictures = [encoder.vision.picture(slot.kind, image) for slot, image in shown]
    except Unfit as unfit:
        dialog.ended, dialog.fault = Ended.FAULT, Fault(unfit.reason, unfit.detail)
    except CorpusError as error:
        dialog.ended, dialog.fault = Ended.FAULT, Fault(Reason.BAD_IMAGE, str(error))
    return dialog


def _stored(image: Any, info: Mapping[str, Any], raw: ImageRoot | None) -> Any:
    return image if isinstance(image, Image.Image) else fetched(image, info, raw)


def _run(model: VPTModel, encoder: RowEncoder, window: list[Dialog], how: Decoding, policy: Policy, batch: int) -> None:
    """All rows of a window that can be asked, the longest first: what does not fit into memory is known soon."""
    asked = [(len(dialog.prompt.input_ids), dialog) for dialog in window if dialog.prompt and not dialog.fault]
    asked.sort(key=lambda pair: -pair[0])
    training = model.training
    model.eval()
    try:
        for start in range(0, len(asked), batch):
            some = [dialog for _, dialog in asked[start : start + batch]]
            begin = time.perf_counter()
            Rounds(model, encoder, some, how, policy).run()
            for dialog in some:
                dialog.seconds = (time.perf_counter() - begin) / len(some)
    finally:
        model.train(training)


def _record(dialog: Dialog) -> Record:
    assert dialog.ended is not None
    turns = tuple(dialog.turns)
    scored = dialog.ended not in (Ended.TOKEN_LIMIT, Ended.FAULT)
    return Record(
        id=dialog.row["id"],
        text=turns[-1] if turns else "",
        turns=turns,
        looks=tuple(dialog.looks),
        invalid=dialog.invalid,
        ended=dialog.ended,
        tokens=tuple(dialog.tokens),
        prompt_tokens=dialog.prompt_tokens,
        logprob=dialog.logprob if scored else None,
        fault=dialog.fault,
        intervened=dialog.intervened,
        controls=tuple(dialog.controls),
        seconds=dialog.seconds,
    )
