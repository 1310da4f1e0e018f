"""JSON as datasets hold it, read with suspicion: the text is a stranger's."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # Arrow and `datasets` walk nested types by recursion


def parse_json(text: str) -> Any:
    """Parse ``text``. ``NaN``, which Python's own writer gives for a missing number, is None.

    Raises:
        ValueError: not JSON (`json.JSONDecodeError` says where), a key that stands in one object twice, or brackets
            nested deeper than `MAX_DEPTH`.

    >>> parse_json('{"price": NaN}')
    {'price': None}
    >>> parse_json('{"id": 1, "id": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'id' occurs twice in one object
    """
    try:
        value = DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        raise ValueError(TOO_DEEP)
    return value


TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def is_deep(value: Any) -> bool:
    """Whether lists and mappings are nested deeper than `MAX_DEPTH`; without recursion, which has its own limit."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, (list, dict)):
                inner.extend(one.values() if isinstance(one, dict) else one)
        if not inner:
            return False
        level = inner
    return True


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of ``pairs``. Python's parser would keep the last of two equal keys and say nothing."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in mapping if names.count(name) > 1)
        raise ValueError(f"the key {repeated[:80]!r} occurs twice in one object")
    return mapping


def constant(name: str) -> float | None:
    """What ``NaN``, ``Infinity`` and ``-Infinity`` stand for."""
    return None if name == "NaN" else float(name)


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=constant)
