"""Rows of a corpus in the form in which the authors published theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vpt_data.corpus.reader import open_corpus
from vpt_data.exchange.published.lint import image_lists


def published(row: dict[str, Any], root: str = "") -> dict[str, Any]:
    """A row of a corpus as the authors write it; `root` is put before its paths."""
    lists: dict[str, list[str]] = {name: [] for name in image_lists().values()}
    for view in row["views"]:
        cut = "_" + ",".join(map(str, view["box"])) if view["box"] else ""
        lists[image_lists()[view["encoder"]]].append(root + row["images"][view["image"]]["path"] + cut)
    messages = [{"content": turn["content"], "role": turn["role"]} for turn in row["messages"]]
    return {"messages": messages, **lists}


def rows_of(corpus: Path) -> list[dict[str, Any]]:
    return list(open_corpus(corpus).rows(images=False))
