"""`in_threads`: a function of torch's over many items, several items at a time instead of several threads an item."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8  # items at a time; above that the interpreter's lock is what they wait for


def at_a_time() -> int:
    """How many items `in_threads` works on at a time: one for each of torch's threads, up to `MOST`."""
    return min(MOST, torch.get_num_threads())


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``function`` of each item, in their order.

    Torch's threads divide every operation among themselves and wait for the slowest of them at its end, which on a
    busy machine takes several times as long as the work. Here each works on an item of its own and waits for none.

    Args:
        function: called in several threads at once, where `torch.inference_mode` and the like are those of each thread.
        items: taken when there is a thread for them; no more are under way than the caller needs next.

    >>> list(in_threads(lambda number: number**2, range(4)))
    [0, 1, 4, 9]
    """
    threads, several = torch.get_num_threads(), at_a_time()
    if several == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(several, initializer=torch.set_num_threads, initargs=(threads // several,)) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > several:  # one more than there are threads: none is idle while the caller works
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)  # of this thread, and of those to come
