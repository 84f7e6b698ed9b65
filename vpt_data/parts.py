"""Partitions decided: which samples each take gets of a partition, what it drops, and the account of it."""

from __future__ import annotations

from collections import Counter

import msgspec

from vpt_data import store
from vpt_data.quotas import rules
from vpt_data.selection.select import select
from vpt_data.selection.take_counts import Component
from vpt_data.work import Work, index


def decide(work: Work, partition: int) -> None:
    """Write the picks, the drops and, last, the account of a partition, unless they are there."""
    done = work.part(partition, "json")
    if done.is_file():
        return
    chosen = select(rules(work), index(work, partition, main=True))
    store.write_arrow(work.part(partition, "picks"), chosen.picks)
    store.write_arrow(work.part(partition, "drops"), chosen.drops)
    store.write(done, msgspec.json.encode(list(chosen.components.values())))


def account(work: Work, partition: int) -> list[Component]:
    """What a decided partition read, dropped and kept of each take."""
    found = msgspec.json.decode(work.part(partition, "json").read_bytes())
    return [Component(**{**part, "dropped": Counter(part["dropped"]), "repaired": Counter()}) for part in found]
