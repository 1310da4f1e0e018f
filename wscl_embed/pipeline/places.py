"""Whether a file or a run may be written, said before the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wscl_embed.errors import InputError
from wscl_embed.run import check_place


def check_file(path: Path, overwrite: bool) -> None:
    """Whether the file ``path`` may be written; changes nothing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Give --overwrite to replace it.")
    check_place(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only job that writes the run ``folder``, for the duration of a ``with`` block: two would mix their files.

    Raises:
        InputError: another one does (says which process).
    """
    from wscl_embed.distributed import on_first
    from wscl_embed.store.partial import Partial

    with ExitStack() as locked:
        on_first(lambda: locked.enter_context(Partial(folder.resolve()).lock()))
        yield
