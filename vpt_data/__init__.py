"""Build, check and publish training data for Visual Perception Tokens (arXiv 2502.17425)."""

import os

__version__ = "0.1.0"


def keep_memory() -> None:
    """Let Arrow keep the memory it frees; call it before pyarrow is loaded, workers inherit it.

    Its allocator would give memory back at once; a build fills and frees the same memory over and over, and half of
    its system time would be page faults.
    """
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
