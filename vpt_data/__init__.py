"""Build, check and publish training data for Visual Perception Tokens (arXiv 2502.17425)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpt_data.api import SCHEMA, build, load_recipe, open_corpus, pixels, plan

__version__ = "0.1.0"
__all__ = ["SCHEMA", "__version__", "build", "load_recipe", "open_corpus", "pixels", "plan"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import vpt_data` alone loads no pyarrow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    keep_memory()
    from vpt_data import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """With the names that are not imported yet."""
    return sorted({*globals(), *__all__})


def keep_memory() -> None:
    """Let Arrow keep the memory it frees; call it before pyarrow is loaded, workers inherit it.

    Its allocator would give memory back at once; a build fills and frees the same memory over and over, and half of
    its system time would be page faults.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
