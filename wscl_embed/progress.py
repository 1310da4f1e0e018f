"""Progress bars and messages on stderr, so that stdout carries results alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters but tab and newline


def printable(text: str) -> str:
    """``text`` with escapes in place of what a terminal would obey: tags and file names are strangers' text.

    >>> printable("sea \\x1b[2J")
    'sea \\\\x1b[2J'
    """
    return OBEYED.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(text: str, style: str | None = None) -> None:
    """Print a line on stderr, as it is: no markup, and nothing a terminal obeys."""
    console().print(printable(text), style=style, markup=False, soft_wrap=True)


@lru_cache(maxsize=1)
def console() -> Console:
    """The console of stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def track(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar when stderr is a terminal, nothing otherwise; yields the function that advances it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(), transient=True, disable=not console().is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
