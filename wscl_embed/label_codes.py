"""Labels of any kind as numbers, by one rule wherever they are compared: scores, the information plane, the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def label_codes(labels: Sequence[object] | NDArray[Any]) -> NDArray[np.int64]:
    """(N,) int64: equal where the labels read alike, -1 where there is none.

    None, NaN, pandas' other missing values and blank strings are none. The order is that of the sequence, whatever
    index a Series of pandas' has.

    >>> label_codes(["cat", None, "eel", "cat ", " "]).tolist()
    [0, -1, 1, 0, -1]
    """
    import pandas as pd

    values = np.fromiter(labels, dtype=object, count=len(labels))
    texts = ["" if missing else str(label).strip() for label, missing in zip(values, pd.isna(values), strict=True)]
    codes = {text: code for code, text in enumerate(sorted(set(texts) - {""}))}
    return np.array([codes.get(text, -1) for text in texts], dtype=np.int64)
