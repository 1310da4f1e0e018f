"""Parquet from strangers: what a file claims to unpack to, and text that is none, are found before anybody reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MANY_BYTES = 1 << 30  # may be unpacked from any file
MAX_RATIO = 100  # of what a larger file unpacks to and its size
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


def read_parquet_table(source: Path | BinaryIO) -> pa.Table:
    """A whole Parquet file whose text is UTF-8.

    A column of one repeated value takes a few bytes on disk whatever its length. So text stays a dictionary and
    numbers until it is known how long it becomes.

    Raises:
        pyarrow.ArrowException: it is no such file, or unpacks to more than its size explains.
    """
    with damage_said():
        return read_checked(source)


def rows_and_columns(path: Path) -> tuple[int, list[str]]:
    """The number of rows and the names of the columns of a file, by its footer.

    Raises:
        pyarrow.ArrowException: as `read_parquet_table`.
    """
    import pyarrow.parquet as pq

    with damage_said(), pq.ParquetFile(path) as file:
        check_footer(file, path.stat().st_size)
        return file.metadata.num_rows, list(file.schema_arrow.names)


@contextmanager
def damage_said() -> Iterator[None]:
    """What the library raises over a damaged footer, as an error of its own."""
    import pyarrow as pa

    try:
        yield
    except (UnicodeDecodeError, LookupError, OverflowError, RuntimeError) as error:
        raise pa.ArrowInvalid(f"damaged ({error})") from error


def read_checked(source: Path | BinaryIO) -> pa.Table:
    """`read_parquet_table`, with errors of other kinds where a footer is damaged."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        check_footer(file, size_of(source))
        check_lists(file, size_of(source))
        texts = [file.schema.column(number).path for number in range(len(file.schema))]
    # ParquetFile, not read_table: a folder named "seed=3" in the path must not become a column.
    with pq.ParquetFile(rewound(source), read_dictionary=texts) as file:
        # A row group at a time: pyarrow reads dictionaries within lists and structs in one piece only.
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        claimed = sum(expanded_bytes(chunk) for group in groups for column in group.columns for chunk in column.chunks)
    check_claim(claimed, size_of(source))
    with pq.ParquetFile(rewound(source)) as file:
        table = file.read()
    table.validate(full=True)
    check_names(table)
    return table


def check_names(table: pa.Table) -> None:
    """See that no column's name ends, for C code, before its end."""
    import pyarrow as pa

    names = [name for name in table.column_names if "\0" in name]
    if names:
        raise pa.ArrowInvalid(f"the column {names[0]!r} has a NUL character in its name")


def check_footer(file: pq.ParquetFile, size: int) -> None:
    """See that the numbers and lengths a file claims to hold are explained by its ``size``; lists apart."""
    columns = [file.schema.column(number) for number in range(len(file.schema))]
    row = sum(WIDTHS.get(column.physical_type, max(1, column.length)) for column in columns)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    check_claim(sum(max(group.total_byte_size, group.num_rows * row) for group in groups), size)


def check_lists(file: pq.ParquetFile, size: int) -> None:
    """`check_footer` for the values in lists too, for which all pages are looked through."""
    file.scan_contents()  # before the columns are asked: pyarrow ends the process where what is said of them is wrong
    claimed = 0
    for group in range(file.metadata.num_row_groups):
        for number in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(number)
            width = WIDTHS.get(chunk.physical_type, max(1, file.schema.column(number).length))
            claimed += chunk.num_values * width
    check_claim(claimed, size)


def check_claim(claimed: int, size: int) -> None:
    """See that a file of ``size`` bytes may unpack to ``claimed``."""
    import pyarrow as pa

    if claimed > max(MANY_BYTES, MAX_RATIO * size):
        raise pa.ArrowInvalid(f"claims {claimed:,} bytes in a file of {size:,}")


def expanded_bytes(array: pa.Array) -> int:
    """How many bytes the values of dictionaries in ``array``, at any depth, take when they are written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    total = 0
    for one in leaves(array):
        if pa.types.is_dictionary(one.type):
            lengths = pc.fill_null(pc.binary_length(one.dictionary), 0).cast(pa.int64())
            total += pc.sum(lengths.take(one.indices)).as_py() or 0
    return total


def leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays without children that ``array`` is made of."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        for child in array.flatten():
            yield from leaves(child)
    elif pa.types.is_map(kind):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from leaves(array.flatten())
    else:
        yield array


def size_of(source: Path | BinaryIO) -> int:
    """The bytes of a file."""
    return source.stat().st_size if isinstance(source, Path) else source.seek(0, 2)


def rewound(source: Path | BinaryIO) -> Path | BinaryIO:
    """``source``, an open file set to its start."""
    if not isinstance(source, Path):
        source.seek(0)
    return source
