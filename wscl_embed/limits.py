"""How large the numbers people give may be.

Each limit is one that no real run meets. Beyond it a library fails in words of its own (a number that overflows), or
the machine is lost before anybody can say why (a million processes).
"""

from __future__ import annotations

MAX_INT = 2**31 - 1  # of what is counted: C libraries hold no larger whole number
MAX_SEED = 2**32 - 1  # scikit-learn's and NumPy's
TINY, HUGE = 1e-9, 1e9  # of real numbers: float32 holds AdamW's step, and what the loss makes of them
MAX_WORKERS = 256  # processes
MAX_IMAGE_SIZE = 8192  # pixels a side
MAX_VIEWS = 10_000  # of an image, cached
MAX_LEVELS = 64  # of a hierarchy
MAX_REPEATS = 100  # of a clustering, whose stability is measured
