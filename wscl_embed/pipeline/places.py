"""Whether a file may be written, said before the work."""

from __future__ import annotations

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
