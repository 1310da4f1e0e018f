"""How often a checkpoint is written within an epoch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class SaveEvery:
    """Every so many steps, or after so many seconds."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> SaveEvery:
        """From ``500`` (steps) or ``10m`` (minutes).

        Raises:
            ValueError: something else.

        >>> SaveEvery.parse("500"), SaveEvery.parse("10m")
        (SaveEvery(steps=500, seconds=None), SaveEvery(steps=None, seconds=600.0))
        """
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)m", text.strip())
        if not match or float(match[1] or match[2]) == 0:
            raise ValueError("give a number of steps such as 500, or of minutes such as 10m")
        return cls(steps=int(match[1])) if match[1] else cls(seconds=60 * float(match[2]))
