"""Processes that decode images and hang, or die; images that are lost; clocks that jump."""

from __future__ import annotations

import ast
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import wscl_embed
from wscl_embed import image_rows
from wscl_embed.errors import LostProcessError
from wscl_embed.image_rows import ImageRows, iterate_images

if TYPE_CHECKING:
    import datasets


def hang(image: Any) -> Tensor:
    threading.Event().wait()
    raise AssertionError


def die(image: Any) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize(
    ("transform", "said"), [(hang, "gave nothing for 2 seconds, near the images"), (die, "died, near the images")]
)
def test_a_worker_that_hangs_or_dies_is_named_with_its_images(
    transform: Callable[[Any], Tensor], said: str, few: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_rows, "TIMEOUT", 2)
    rows = ImageRows(few, [transform], None)
    with pytest.raises(LostProcessError, match=said) as lost:
        list(iterate_images(torch.utils.data.Subset(rows, [5, 7, 9, 11]), 1, torch.device("cpu"), batch_size=2))
    assert ", ".join(few.select([5, 7])["id"]) in str(lost.value)
    assert "\n" not in str(lost.value)
    assert lost.value.exit_code == 7


def test_nothing_waits_for_the_wall_clock() -> None:
    """It may be set, forwards and backwards: what lasts is measured by clocks that only go on."""
    reads = []
    for path in sorted(Path(wscl_embed.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and f"{ast.unparse(node.value)}.{node.attr}" in (
                "time.time", "time.time_ns", "datetime.now", "datetime.datetime.now",
            ):  # fmt: skip
                reads.append(path.name)
    assert reads == ["partial.py"]  # says since when, to people
