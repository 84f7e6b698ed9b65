"""Making the next thing in a thread while the last one is still used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """The same items in the same order; while one is used, a thread makes the next, and no more than that.

    What making an item raises is raised where the item would have come. The thread has ended when the block ends,
    also where not all items were taken.
    """
    made: SimpleQueue[T | _End] = SimpleQueue()
    room, stop = Semaphore(1), Event()
    thread = Thread(target=_make, args=(items, made, room, stop), daemon=True)
    thread.start()
    try:
        yield _taken(made, room)
    finally:
        stop.set()
        room.release()
        thread.join()


class _End:
    """Behind the last item: why there is none after it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _make(items: Iterable[T], made: SimpleQueue[T | _End], room: Semaphore, stop: Event) -> None:
    error = None
    try:
        source = iter(items)
        while room.acquire() and not stop.is_set():
            made.put(next(source))
    except StopIteration:
        pass
    except BaseException as raised:  # noqa: BLE001 - raised again by who takes the items
        error = raised
    made.put(_End(error))


def _taken(made: SimpleQueue[T | _End], room: Semaphore) -> Iterator[T]:
    while not isinstance(item := made.get(), _End):
        room.release()
        yield item
    if item.error is not None:
        raise item.error
