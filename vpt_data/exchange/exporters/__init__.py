"""Corpora in the forms that trainers read: one file and one line of EXPORTERS each.

exporter         what an exporter is
pictures         where a row's images are written, and what they are called there
export           the command: rows in, files out, counted
vpt_llamafactory  the form of the authors of VPT, for their fork of LLaMA-Factory
llamafactory     LLaMA-Factory as it is (sharegpt)
ms_swift         ms-swift
qwen_vl          the fine-tuning code of Qwen-VL
openai           chat messages with images inside
"""

from __future__ import annotations

from vpt_data.exchange.exporters import llamafactory, ms_swift, openai, qwen_vl, vpt_llamafactory
from vpt_data.exchange.exporters.exporter import Exporter

EXPORTERS: dict[str, Exporter] = {
    "vpt-llamafactory": vpt_llamafactory.EXPORTER,
    "llamafactory": llamafactory.EXPORTER,
    "ms-swift": ms_swift.EXPORTER,
    "qwen-vl": qwen_vl.EXPORTER,
    "openai": openai.EXPORTER,
}
