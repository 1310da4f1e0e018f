"""Errors a person can act on, and the exit codes they end the command line with."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class WsclEmbedError(Exception):
    """A failure that explains itself: what was wrong, where, and what to do. Ends the command line with exit code 1."""

    exit_code = 1


class InputError(WsclEmbedError):
    """Wrong use or bad input: the person who ran the command can mend it. Exit code 2."""

    exit_code = 2


class DivergedError(WsclEmbedError):
    """The loss, or the weights, are no finite numbers any more. Exit code 3."""

    exit_code = 3


class MemoryLimitError(WsclEmbedError):
    """Not enough memory, on the GPU or beside it, and no way to do with less. Exit code 4."""

    exit_code = 4


class StorageError(WsclEmbedError, OSError):
    """The disk is full, broken or read-only. Exit code 5."""

    exit_code = 5


class LostInputError(WsclEmbedError):
    """An image that could be read at the start of the run cannot be read any more. Exit code 6."""

    exit_code = 6


class LostProcessError(WsclEmbedError):
    """A process this one works with, of ``torchrun``'s or one that decodes images, died or hangs. Exit code 7."""

    exit_code = 7


class MissingExtraError(InputError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(package, extra, needed_for)  # what pickle makes it from, on its way to other processes

    def __str__(self) -> str:
        package, extra, needed_for = self.args
        return f"{needed_for} needs the package {package}: pip install 'wscl-embed[{extra}]'"


def import_extra(module: str, *, package: str, extra: str, needed_for: str) -> ModuleType:
    """Import ``module``, or raise `MissingExtraError` with the pip line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(package, extra, needed_for) from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """A sentence that names the nearest of ``choices`` and lists them all, for an error about an unknown ``name``.

    >>> nearest("hashtag", ["captions", "hashtags"])
    'Did you mean hashtags? There are: captions, hashtags.'
    """
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]}? " if close else ""
    return f"{guess}There are: {', '.join(known) or 'none'}."
