"""Metadata files - JSON lines, CSV, Parquet - as Arrow tables, with errors that name the line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError
from wscl_embed.readers.json_text import parse_json
from wscl_embed.readers.source import innermost

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_SUFFIXES = (".jsonl", ".csv", ".parquet")
MAX_LINE = 1 << 24  # bytes; a line is held whole
MAX_COLUMNS = 1000
# A key that few records have is null in all others: a small file of ever new keys would fill the memory with nulls.
MANY_CELLS = 10_000_000
MAX_SPARSITY = 300

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
            record = parse_json(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}.") from error
        except ValueError as error:  # A number of thousands of digits; thousands of brackets; a key twice.
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
        check_columns(header, f"{path}:1")
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
            for number, line in enumerate(iter(lambda: handle.readline(MAX_LINE + 1), b""), 1):
                if len(line) > MAX_LINE:
                    raise InputError(f"{path}:{number}: a line longer than {MAX_LINE >> 20} MiB.")
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line)."
                    ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def check_columns(header: Sequence[str], place: str) -> None:
    """See that a header has no name twice, and not too many."""
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(f"{place}: the column {min(repeated)!r} occurs more than once.")
    if len(header) > MAX_COLUMNS:
        raise InputError(f"{place}: {len(header):,} columns, more than {MAX_COLUMNS:,}. {FEWER_COLUMNS}")


FEWER_COLUMNS = "Write values with names of their own as a list of name and value."


def check_sparsity(records: Sequence[dict[str, Any]], place: Callable[[int], str]) -> None:
    """See that ``records``, and the mappings within them, make a table that its content explains.

    Raises:
        InputError: more than `MAX_COLUMNS` columns, or a mapping with so many different keys that nearly all of its
            cells would be null.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    if len(names) > MAX_COLUMNS:
        row = next(row for row, record in enumerate(records) if not record.keys() <= set(names[:MAX_COLUMNS]))
        raise InputError(f"{place(row)}: more than {MAX_COLUMNS:,} different keys up to here. {FEWER_COLUMNS}")
    waiting = [(name, mappings_of([record.get(name) for record in records])) for name in names]
    while waiting:
        path, mappings = waiting.pop()
        keys = set().union(*mappings)
        if len(keys) * len(mappings) > max(MANY_CELLS, MAX_SPARSITY * sum(map(len, mappings))):
            raise InputError(
                f"{place(0)}: the mappings of the column {path!r} have {len(keys):,} different keys. {FEWER_COLUMNS}"
            )
        waiting += [(path, inner) for key in keys if (inner := mappings_of([one.get(key) for one in mappings]))]


def mappings_of(values: Sequence[Any]) -> list[dict[str, Any]]:
    """The mappings among ``values``, and in lists among them."""
    found = [value for value in values if isinstance(value, dict)]
    lists = [value for value in values if isinstance(value, list)]
    while lists:
        found += [one for value in lists for one in value if isinstance(one, dict)]
        lists = [one for value in lists for one in value if isinstance(one, list)]
    return found


def checked_line(path: Path, number: int, line: str) -> str:
    """``line``, if it has no NUL in it: Python versions differ in what their CSV reader makes of one."""
    if "\0" in line:
        raise InputError(f"{path}:{number}: a NUL byte, which no CSV file may hold.")
    return line


def table_of(records: Sequence[dict[str, Any]], place: Callable[[int], str]) -> pa.Table:
    """One column for every key there is, in the order of their first appearance; null where a record lacks it.

    Mappings become structs with the union of their keys.

    Raises:
        InputError: a column whose type changes, with ``place`` of the row where it does, or more columns or keys than
            their values explain.

    >>> table_of([{"year": 2011}, {"year": "2012"}], place="line {}".format)
    Traceback (most recent call last):
    ...
    wscl_embed.errors.InputError: line 1: the column 'year' holds '2012', but int64 in the lines before.
    """
    import pyarrow as pa

    check_sparsity(records, place)
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

    from wscl_embed.readers.parquet import read_parquet_table

    tables: list[pa.Table] = []
    for path in paths:
        try:
            tables.append(read_parquet_table(path).replace_schema_metadata(None))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a Parquet file that can be read ({innermost(error)}).") from error
        check_columns(tables[-1].column_names, str(path))
    sizes = [len(table) for table in tables]
    places = [(path, f"row {row}") for path, size in zip(paths, sizes, strict=True) for row in range(1, size + 1)]
    try:
        return pa.concat_tables(tables, promote_options="default"), places
    except pa.ArrowException as error:
        raise InputError(f"{paths[0]} and the files beside it differ in their columns ({error}).") from error
