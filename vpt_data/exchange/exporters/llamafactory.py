"""LLaMA-Factory as it is: messages and one list of images, `<image>` for each of them in order (sharegpt).

Crops are files of their own. It knows one vision encoder: what another would show is shown as the whole image again,
and the tokens that call it stay. All tokens of looks have to be added to the tokenizer (`add_tokens`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vpt_data.dialogue.tokens import IMAGE
from vpt_data.exchange.exporters.exporter import Exporter, Pictures, Row, pieces

_TAGS: Final = {"role_tag": "role", "content_tag": "content"} | {
    f"{role}_tag": role for role in ("user", "assistant", "system")
}


def record(row: Row, pictures: Pictures) -> dict[str, Any]:
    """Messages, and one list of images for all their placeholders."""
    contents = ("".join(IMAGE if isinstance(piece, int) else piece for piece in each) for each in pieces(row))
    return {
        "messages": [
            {"role": turn["role"], "content": content} for turn, content in zip(row["messages"], contents, strict=True)
        ],
        "images": [pictures.file(row, number) for number in range(len(row["views"]))],
    }


def _beside(splits: list[str]) -> dict[str, bytes]:
    return dataset_info({split: EXPORTER.file(split) for split in splits}, ["messages", "images"], _TAGS)


def dataset_info(files: dict[str, str], columns: Sequence[str], tags: Mapping[str, str]) -> dict[str, bytes]:
    """The file by which LLaMA-Factory and its forks find the records of each split (split -> file)."""
    form = {"formatting": "sharegpt", "columns": {name: name for name in columns}, "tags": tags}
    entries = {f"vpt_{split}": {"file_name": file, **form} for split, file in files.items()}
    return {"dataset_info.json": (json.dumps(entries, indent=2) + "\n").encode()}


EXPORTER: Final = Exporter(
    record=record,
    lines=False,
    crops="a PNG file for each crop",
    loss="which encoder a look goes through: it is shown as the whole image again",
    follows="LLaMA-Factory 0.9.5",
    beside=_beside,
)
