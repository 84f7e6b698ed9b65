"""The engine of a name: `local`, `ranks` or `ray`. Engines only schedule."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vpt_data.pipeline.engines.local import Local, pool
from vpt_data.pipeline.engines.ranks import Ranks, rank_of
from vpt_data.pipeline.engines.ray import Ray, cluster
from vpt_data.pipeline.engines.task import Engine


@contextmanager
def start_engine(name: str, workers: int, address: str | None = None, preload: Sequence[str] = ()) -> Iterator[Engine]:
    """The engine of that name: `local`, `ranks` or `ray`; an error or interrupt stops its workers at once.

    preload   modules that workers of this machine import while the first input is read
    """
    if name == "ray":
        with cluster(workers, address) as joined:
            yield Ray(joined)
        return
    with pool(workers, preload) as made:
        local = Local(made, workers)
        yield local if name == "local" else Ranks(*rank_of(os.environ), local)
