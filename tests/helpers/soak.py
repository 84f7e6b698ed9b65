"""What `make soak` runs and `make test` does not: VPT_SOAK=1 chooses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")

SOAK = os.environ.get("VPT_SOAK") == "1"
#: For a test that `make test` leaves out.
in_the_soak = pytest.mark.skipif(not SOAK, reason="takes long; VPT_SOAK=1 runs it")


def some_of(every: Sequence[T], *places: int) -> list[T]:
    """All cases in the soak, else those at these places."""
    return list(every) if SOAK else [every[place] for place in places]
