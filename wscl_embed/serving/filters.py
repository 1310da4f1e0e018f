"""Filters for people who write no SQL: a column, a comparison and a value become a condition."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError, nearest

if TYPE_CHECKING:
    import datasets

KINDS = {
    "text": ("is", "is not", "contains", "is empty"),
    "number": ("is", "is not", "at least", "at most", "is empty"),
    "yes or no": ("is", "is not", "is empty"),
    "list": ("contains", "is empty"),
}
"""The comparisons each kind of column has."""
COMPARISONS = tuple(dict.fromkeys(name for names in KINDS.values() for name in names))
SIGNS = {"is": "=", "is not": "<>", "at least": ">=", "at most": "<="}
MAX_VALUES = 100
MAX_LENGTH = 100


def column_kinds(dataset: datasets.Dataset) -> dict[str, str]:
    """The columns that can be filtered by, and of which of `KINDS` each is.

    >>> import datasets
    >>> column_kinds(datasets.Dataset.from_dict({"id": ["a"], "price": [1.5], "tags": [["x"]], "box": [[[0, 1]]]}))
    {'id': 'text', 'price': 'number', 'tags': 'list'}
    """
    kinds = {name: _kind(feature) for name, feature in dataset.features.items() if name != "image"}
    return {name: kind for name, kind in kinds.items() if kind}


def _kind(feature: Any) -> str:
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return "list" if _kind(inner) == "text" else ""
    dtype = str(getattr(feature, "dtype", ""))
    if dtype in ("string", "large_string"):
        return "text"
    if dtype == "bool":
        return "yes or no"
    return "number" if dtype.startswith(("int", "uint", "float")) else ""


def condition(kinds: dict[str, str], column: str, comparison: str, value: str) -> str:
    """The SQL condition of a filter.

    Raises:
        InputError: no such column or comparison, or a value that does not fit the column.

    >>> condition({"shop": "text"}, "shop", "is", "Joe's")
    '"shop" = \\'Joe\\'\\'s\\''
    >>> condition({"post": "number"}, "post", "is", "1234567890123456789")
    '"post" = 1234567890123456789'
    """
    if column not in kinds:
        raise InputError(f"There is no column {column!r} to filter by. {nearest(column, kinds)}")
    kind = kinds[column]
    if comparison not in KINDS[kind]:
        raise InputError(f"{column} is a {kind}: it has {', '.join(KINDS[kind])}, not {comparison!r}.")
    name = '"' + column.replace('"', '""') + '"'
    text = "'" + value.replace("'", "''") + "'"
    if comparison == "is empty":
        return f"{name} IS NULL"
    if kind == "list":
        return f"list_contains({name}, {text})"
    if comparison == "contains":
        return f"contains(lower({name}), lower({text}))"
    return f"{name} {SIGNS[comparison]} {text if kind == 'text' else _literal(column, kind, value)}"


def _literal(column: str, kind: str, value: str) -> str:
    if kind == "yes or no":
        truth = {"true": "true", "yes": "true", "false": "false", "no": "false"}.get(value.strip().lower())
        if truth is None:
            raise InputError(f"{column} is yes or no, not {value!r}.")
        return truth
    if re.fullmatch(r"\s*-?[0-9]+\s*", value):
        return str(int(value))  # as it is: a float holds 16 digits, and ids may have more
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{column} is a number, and {value!r} is none.")
    return repr(number)


def both(one: str, other: str) -> str | None:
    """The condition of an image that meets both; either may be empty.

    >>> both("price < 50", "")
    'price < 50'
    """
    if one and other:
        return f"(\n{one}\n) AND (\n{other}\n)"  # on lines of their own: either may end in a comment
    return one or other or None


def values_of(dataset: datasets.Dataset) -> Callable[[str], list[str]]:
    """A function from a column to its commonest values as text, the commonest first; it remembers a few columns."""

    @lru_cache(maxsize=16)
    def values(column: str) -> list[str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        array = dataset.select_columns([column]).with_format("arrow")[:].column(column).combine_chunks()
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            array = array.flatten()
        counts = pc.value_counts(array.drop_null())
        order = pc.sort_indices(counts.field("counts"), sort_keys=[("", "descending")])[:MAX_VALUES]
        found = [str(value) for value in counts.field("values").take(order).to_pylist()]
        return [value for value in found if len(value) <= MAX_LENGTH]

    return values
