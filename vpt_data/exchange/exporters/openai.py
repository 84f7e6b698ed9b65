"""Chat messages as the API of OpenAI has them: parts of text, and images inside as data URIs."""

from __future__ import annotations

from typing import Any, Final

from vpt_data.exchange.exporters.exporter import Exporter, Pictures, Row, pieces


def _record(row: Row, pictures: Pictures) -> dict[str, Any]:
    messages = []
    for turn, content in zip(row["messages"], pieces(row), strict=True):
        parts: str | list[dict[str, Any]] = "".join(map(str, content))
        if turn["role"] == "user":
            parts = [_part(row, piece, pictures) for piece in content]
        messages.append({"role": turn["role"], "content": parts})
    return {"messages": messages}


def _part(row: Row, piece: str | int, pictures: Pictures) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    return {"type": "image_url", "image_url": {"url": pictures.data(row, piece)}}


EXPORTER: Final = Exporter(
    record=_record,
    lines=True,
    crops="a PNG image inside the record",
    loss="which encoder a look goes through: it is shown as the whole image again",
    follows="the chat format of OpenAI's fine-tuning API for images",
)
