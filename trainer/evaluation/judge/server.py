"""The server of a judge: its address and key come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from trainer.evaluation.endpoint import Endpoint, Server
from trainer.evaluation.judge.prompt import MAX_TOKENS

_SERVER: Final = Server(
    who="The judge",
    missing=(
        "The judge has no key; set OPENAI_API_KEY, and OPENAI_BASE_URL for a server of your own (with any key where it "
        "asks for none)."
    ),
    settings="its name, OPENAI_BASE_URL and OPENAI_API_KEY",
)


def judge_named(
    model: str, timeout: float = 60.0, attempts: int = 6, wait: Callable[[float], None] = time.sleep
) -> Endpoint:
    """A model of that server, with as many tokens as published; UsageError without `openai` or a key."""
    return Endpoint(model, _SERVER, MAX_TOKENS, timeout, attempts, wait)
