"""What people see of a repository: its cards."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from vpt_data.exchange.hub.layout import CARD, Part
from vpt_data.store import AnyPath


def pages(parts: Sequence[Part], raw: AnyPath | None) -> list[tuple[str, bytes]]:
    """Paths in the repository and bytes of its cards and of what they show.

    raw   the raw root, for pictures of rows whose images are not in the shards
    """
    cards = [(f"{part.folder}{CARD}", (part.corpus.place / CARD).read_bytes()) for part in parts]
    return cards if len(parts) == 1 else [(CARD, _overview(parts).encode()), *cards]


def _overview(parts: Sequence[Part]) -> str:
    """The card of a repository with several corpora: its head names their files, its text their cards."""
    configs = [
        {
            "config_name": part.config,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": split, "path": pattern} for split, pattern in part.data_files.items()],
        }
        for number, part in enumerate(parts)
    ]
    lines = [f"- [{part.config}]({part.folder}{CARD})" for part in parts]
    head = yaml.safe_dump({"configs": configs}, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n# Visual Perception Token corpora\n\n" + "\n".join(lines) + "\n"
