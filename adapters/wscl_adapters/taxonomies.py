"""Paths of classes: from a column that holds them, or from a label and a table of parents (as WordNet is one)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wscl_embed.errors import InputError
from wscl_embed.readers.metadata import METADATA_SUFFIXES, Place, read_metadata, show

Parts = tuple[str, ...]  # from the coarsest class to the finest; empty without a signal

logger = logging.getLogger("wscl_embed")


def parts_of(value: Any, separator: str) -> Parts:
    """The path a record has: a string with separators, or a list; blank parts are left out.

    Raises:
        ValueError: neither of them.

    >>> parts_of("animal / bird/auklet", "/"), parts_of(["animal", "bird"], "/"), parts_of(None, "/")
    (('animal', 'bird', 'auklet'), ('animal', 'bird'), ())
    """
    if value is None:
        return ()
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(part is None or isinstance(part, (str, int)) for part in parts):
        raise ValueError(f"a {type(value).__name__} ({value!r:.80})")
    return tuple(filter(None, (str(part).strip() for part in parts if part is not None)))


def without_common_root(paths: Sequence[Parts]) -> int:
    """How many of the first parts all paths share: levels at which there is nothing to tell apart.

    >>> without_common_root([("entity", "animal", "bird"), ("entity", "plant"), ()])
    1
    """
    known = [path for path in paths if path]
    shared = 0
    while any(len(path) > shared + 1 for path in known) and len({path[shared : shared + 1] for path in known}) == 1:
        shared += 1
    return shared


def paths_of_labels(labels: Sequence[str | None], table: Path) -> list[Parts]:
    """The path of each label from its root, by a table of parents; empty where there is no label.

    Raises:
        InputError: a table that cannot be used (see `read_parents`), or labels it does not have.
    """
    path_of = read_parents(table)
    unknown = sorted({label for label in labels if label is not None and label not in path_of})
    if unknown:
        raise InputError(
            f"{table}: {len(unknown)} of the labels are not in it, such as {', '.join(map(repr, unknown[:3]))}. Add a "
            "row for each, with its parent, or with an empty one for a root."
        )
    return [() if label is None else path_of[label] for label in labels]


def read_parents(table: Path) -> dict[str, Parts]:
    """The path of every class in a table with the columns ``child`` and ``parent`` (CSV, JSON lines or Parquet).

    A row with an empty parent, or a parent that is nobody's child, is a root. Of several parents, which WordNet has,
    the first in the file counts; how many there are is said.

    Raises:
        InputError: no such table, other columns, a row without a child, or a cycle.
    """
    parent_of, places = _parents(table)
    paths: dict[str, Parts] = {}
    for start in parent_of:
        chain: dict[str, None] = {}  # up from ``start``, until a path is known, in that order
        above: str | None = start
        while above is not None and above not in paths:
            if above in chain:
                cycle = " -> ".join([*list(chain)[list(chain).index(above) :], above])
                raise InputError(f"{show(places[above])}: a cycle of parents: {cycle}. Remove one of these rows.")
            chain[above] = None
            above = parent_of.get(above)
        path = paths[above] if above is not None else ()
        for name in reversed(chain):
            path = paths[name] = (*path, name)
    return paths


def _parents(table: Path) -> tuple[dict[str, str | None], Mapping[str, Place]]:
    """The first parent of each class, None for roots, and where it stands."""
    if table.suffix.lower() not in METADATA_SUFFIXES:
        raise InputError(f"{table}: a table of parents is one of {', '.join(METADATA_SUFFIXES)}.")
    if not table.is_file():
        raise InputError(f"{table}: there is no such file.")
    read, rows = read_metadata([table])
    if missing := {"child", "parent"} - set(read.column_names):
        raise InputError(
            f"{table}: no column {' and no column '.join(map(repr, sorted(missing)))}; a table of parents has child "
            f"and parent. Its columns are: {', '.join(read.column_names)}."
        )
    parent_of: dict[str, str | None] = {}
    places: dict[str, Place] = {}
    several = set()
    for child, parent, place in zip(read["child"].to_pylist(), read["parent"].to_pylist(), rows, strict=True):
        name, above = _name(child), _name(parent)
        if name is None:
            raise InputError(f"{show(place)}: no child.")
        if name in parent_of and parent_of[name] != above:
            several.add(name)
        if name not in parent_of:
            parent_of[name], places[name] = above, place
    for above in [above for above in parent_of.values() if above is not None]:
        parent_of.setdefault(above, None)
    if several:
        logger.warning(
            "%s: %d classes have several parents, such as %r; the first in the file counts.",
            table,
            len(several),
            min(several),
        )
    return parent_of, places


def _name(value: Any) -> str | None:
    return str(value).strip() or None if value is not None else None
