"""What the targets share: seeds, a place for what is found, and what counts as a finding."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import atheris

os.environ["HF_HUB_OFFLINE"] = "1"
FOUND = Path("runs/fuzz")


def fuzz(target: Callable[[Path], object], seeds: Sequence[bytes], name: str) -> None:
    """Give ``target`` files made from ``seeds`` until libFuzzer's limits (``-max_total_time=60``, ``-runs=1000``).

    An `InputError` is an answer. Any other error, a hang or too much memory is a finding, whose input is kept below
    ``runs/fuzz``.
    """
    from wscl_embed.errors import InputError

    kind = Path(sys.argv[0]).stem
    corpus = FOUND / kind
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    place = Path("/dev/shm" if Path("/dev/shm").is_dir() else corpus) / f"fuzz-{kind}-{os.getpid()}"
    place.mkdir()
    path = place / name

    def one(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(InputError):
            target(path)

    limits = ["-timeout=60", "-rss_limit_mb=3000", f"-artifact_prefix={FOUND / kind}-"]
    atheris.Setup([*sys.argv, *limits, str(corpus)], one)
    atheris.Fuzz()
