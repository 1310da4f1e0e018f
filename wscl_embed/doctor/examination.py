"""All of it, one part after the other."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from wscl_embed.cache import default_cache_dir
from wscl_embed.doctor.finding import Finding
from wscl_embed.doctor.machine import decoders, disks, gpus, processors
from wscl_embed.doctor.packages import extras, imports, requirements, torch_and_torchvision


def examine(output: str | Path = ".") -> Iterator[Finding]:
    """Look at Python, packages, processors, GPUs, decoders and disks, in about half a minute.

    Args:
        output: where runs would be written; beside it the cache is looked at.
    """
    yield Finding("Python", "fine", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield from requirements()
    pair = list(torch_and_torchvision())
    yield from pair
    if all(one.state == "fine" for one in pair):
        yield from imports()
        yield from processors()
        yield from gpus()
    yield from decoders()
    yield from disks({"output": Path(output), "cache": default_cache_dir()})
    yield from extras()
