"""What stands between a stranger's model and us: its errors in one line, its code not run, its library kept quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any
from unittest.mock import patch

from wscl_embed.errors import InputError


@contextmanager
def explained(model: str, weights: str | None) -> Iterator[None]:
    """Turn the libraries' errors about weights and configurations into one line.

    Raises:
        InputError: instead of theirs.
    """
    import pickle

    from safetensors import SafetensorError

    try:
        yield
    except (pickle.UnpicklingError, EOFError, SafetensorError) as error:
        raise InputError(f"{weights or model}: not a checkpoint of tensors that can be read safely.") from error
    except AssertionError as error:  # open_clip asserts that the shapes it may resize have the right width
        raise InputError(f"checkpoint {weights} does not fit model {model}: {error}") from error
    except (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        if "Error(s) in loading state_dict" in lines[0]:
            raise InputError(
                f"checkpoint {weights} does not fit model {model}, it is of another architecture: {lines[1][:160]} ..."
            ) from error
        loaded = f"model {model} with weights {weights}" if weights else f"model {model}"
        raise InputError(f"{loaded} cannot be loaded: {lines[0][:300]}") from error


@contextmanager
def without_remote_code() -> Iterator[None]:
    """Within the ``with`` block Transformers refuses models that bring code: otherwise it asks on the terminal whether
    to run it, and waits."""
    refusing: AbstractContextManager[object] = nullcontext()
    with suppress(ModuleNotFoundError):  # open_clip does without Transformers; then nothing asks
        from transformers import dynamic_module_utils

        refusing = patch.object(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", 0)
    with refusing:
        yield


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """open_clip logs through the root logger, and warns of random weights where we load our own afterwards."""
    root: Any = logging.root
    previous = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
