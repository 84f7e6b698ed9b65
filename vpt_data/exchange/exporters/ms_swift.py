"""ms-swift: messages and one list of images, `<image>` for each of them in order, one record a line.

Crops are files of their own; what another encoder would show is shown as the whole image again. The tokens of looks
have to be added to the tokenizer (`new_special_tokens`).
"""

from __future__ import annotations

from typing import Final

from vpt_data.exchange.exporters import llamafactory
from vpt_data.exchange.exporters.exporter import Exporter

EXPORTER: Final = Exporter(
    record=llamafactory.record,
    lines=True,
    crops="a PNG file for each crop",
    loss="which encoder a look goes through: it is shown as the whole image again",
    follows="ms-swift 4.6.0",
)
