"""The fine-tuning code of Qwen-VL: conversations of human and gpt, and one list of images (`image`).

Crops are files of their own; what another encoder would show is shown as the whole image again.
"""

from __future__ import annotations

from typing import Any, Final

from vpt_data.dialogue.tokens import IMAGE
from vpt_data.exchange.exporters.exporter import Exporter, Pictures, Row, Unsayable, pieces

_SPEAKERS: Final = {"user": "human", "assistant": "gpt"}


def _record(row: Row, pictures: Pictures) -> dict[str, Any]:
    if row["messages"][0]["role"] == "system":
        raise Unsayable("it has a system turn")
    values = ("".join(IMAGE if isinstance(piece, int) else piece for piece in each) for each in pieces(row))
    return {
        "image": [pictures.file(row, number) for number in range(len(row["views"]))],
        "conversations": [
            {"from": _SPEAKERS[turn["role"]], "value": value}
            for turn, value in zip(row["messages"], values, strict=True)
        ],
    }


EXPORTER: Final = Exporter(
    record=_record,
    lines=False,
    crops="a PNG file for each crop",
    loss="rows with a system turn are left out; a look through another encoder is shown as the whole image again",
    follows="qwen-vl-finetune of Qwen3-VL",
)
