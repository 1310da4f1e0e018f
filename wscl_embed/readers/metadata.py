"""Metadata files - JSON lines, CSV, Parquet - as Arrow tables, with errors that name the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_SUFFIXES = (".jsonl", ".csv", ".parquet")

Rows = tuple[list[dict[str, Any]], list[int]]  # the records, and the line each begins on
Place = tuple[Path, str]  # a metadata file, and the line or row in it


def read_metadata(paths: Sequence[Path]) -> tuple[pa.Table, list[Place]]:
    """Read metadata files of one suffix, one after the other.

    Returns:
        the table, in which a record without some column has null there, and the place of each row.

    Raises:
        InputError: anything that does not parse, or does not fit the lines before it.
    """
    if paths[0].suffix.lower() == ".parquet":
        return read_parquet_metadata(paths)
    parse = parse_jsonl if paths[0].suffix.lower() == ".jsonl" else parse_csv
    records: list[dict[str, Any]] = []
    places: list[Place] = []
    for path in paths:
        rows, lines = parse(path)
        records.extend(rows)
        places.extend((path, str(line)) for line in lines)
    return table_of(records, lambda row: show(places[row])), places


def show(place: Place) -> str:
    """A place as it stands in error messages.

    >>> show((Path("metadata.jsonl"), "12"))
    'metadata.jsonl:12'
    """
    path, where = place
    return f"{path}:{where}"


def parse_jsonl(path: Path) -> Rows:
    """Parse JSON lines: one object a line; blank lines are skipped."""
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}.") from error
        except (ValueError, RecursionError) as error:  # A number of thousands of digits; thousands of brackets.
            raise InputError(f"{path}:{number}: not JSON that can be read ({error}).") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: a {type(record).__name__}; every line must be a JSON object {{...}}.")
        records.append(record)
        lines.append(number)
    return records, lines


def parse_csv(path: Path) -> Rows:
    """Parse CSV with a header line. Every value is a string (``007`` stays ``007``); an empty cell is null."""
    csv_reader = csv.reader((checked_line(path, *numbered) for numbered in text_lines(path)), strict=True)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    begin = 1
    try:
        header = next(csv_reader, [])
        repeated = {name for name in header if header.count(name) > 1}
        if repeated:
            raise InputError(f"{path}:1: the column {min(repeated)!r} occurs more than once.")
        begin = csv_reader.line_num + 1
        for cells in csv_reader:
            if cells and len(cells) != len(header):
                raise InputError(f"{path}:{begin}: {len(cells)} cells, but the header has {len(header)}.")
            if cells:
                # pandas writes its index as a column without a name: not a signal.
                records.append({name: cell or None for name, cell in zip(header, cells, strict=True) if name})
                lines.append(begin)
            begin = csv_reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{begin}: not valid CSV: {error}.") from error
    return records, lines


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, numbered from 1; a byte-order mark is dropped."""
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line)."
                    ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def checked_line(path: Path, number: int, line: str) -> str:
    """``line``, if it has no NUL in it: Python versions differ in what their CSV reader makes of one."""
    if "\0" in line:
        raise InputError(f"{path}:{number}: a NUL byte, which no CSV file may hold.")
    return line


def table_of(records: Sequence[dict[str, Any]], place: Callable[[int], str]) -> pa.Table:
    """One column for every key there is, in the order of their first appearance; null where a record lacks it.

    Mappings become structs with the union of their keys.

    Raises:
        InputError: a column whose type changes, with ``place`` of the row where it does.

    >>> table_of([{"year": 2011}, {"year": "2012"}], place="line {}".format)
    Traceback (most recent call last):
    ...
    wscl_embed.errors.InputError: line 1: the column 'year' holds '2012', but int64 in the lines before.
    """
    import pyarrow as pa

    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: column_of(name, [record.get(name) for record in records], place) for name in names}
    return pa.table(columns)


def column_of(name: str, values: list[Any], place: Callable[[int], str]) -> pa.Array:
    """``values`` as an Arrow array of the type they have in common."""
    import pyarrow as pa

    # Arrow's own errors, UnicodeEncodeError for half a surrogate pair, OverflowError for integers beyond 64 bit.
    failures = (pa.ArrowException, ValueError, TypeError, OverflowError)
    try:
        return pa.array(values)
    except failures as error:
        good, bad = 0, len(values)  # values[:good] has a type, values[:bad] has none
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                pa.array(values[:middle])
                good = middle
            except failures:
                bad = middle
        before = pa.array(values[:good]).type
        shown = ascii(values[good])
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        problem = f"but {before} in the lines before" if not pa.types.is_null(before) else "which cannot be stored"
        raise InputError(f"{place(good)}: the column {name!r} holds {shown}, {problem}.") from error


def read_parquet_metadata(paths: Sequence[Path]) -> tuple[pa.Table, list[Place]]:
    """Read metadata in Parquet; the place of a row is its number, from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[pa.Table] = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, partitioning=None).replace_schema_metadata(None))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a Parquet file that can be read ({error}).") from error
    sizes = [len(table) for table in tables]
    places = [(path, f"row {row}") for path, size in zip(paths, sizes, strict=True) for row in range(1, size + 1)]
    try:
        return pa.concat_tables(tables, promote_options="default"), places
    except pa.ArrowException as error:
        raise InputError(f"{paths[0]} and the files beside it differ in their columns ({error}).") from error
