"""Libraries that may be missing."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def import_faiss() -> Any:
    """The module faiss, or None where the extra is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its SWIG wrapper, from Python 3.12
            return importlib.import_module("faiss")
    except ModuleNotFoundError:
        return None
