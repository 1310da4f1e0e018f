"""Metadata in JSON lines, CSV and Parquet that is broken, or made to harm."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hostile.doors import dataset, signals
from tests.hostile.sandbox import read, refusal

GIGABYTE = 1 << 30


def lines(*records: object) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def keys_of_their_own(count: int, within: str | None = None) -> str:
    own = ({f"key {number}": number} for number in range(count))
    return lines(*({"file_name": str(n), **({within: one} if within else one)} for n, one in enumerate(own)))


JSONL: dict[str, tuple[str | bytes, str]] = {
    "half a line": ('{"file_name": "a"}\n{"file_name": "b", "ta', "metadata.jsonl:2: not valid JSON"),
    "a key twice": ('{"file_name": "a", "file_name": "b"}', "metadata.jsonl:1: not JSON that can be read (the key"),
    "a key twice further in": ('{"file_name": "a", "x": [{"k": 1, "k": 2}]}', "the key 'k' occurs twice in one object"),
    "10,000 levels": ('{"file_name": "a", "x": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested deeper than 64 levels"),
    "100 levels": ('{"file_name": "a", "x": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64 levels"),
    "10,000 mappings": ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested deeper than 64 levels"),
    "ever new keys": (keys_of_their_own(1200), "metadata.jsonl:1000: more than 1,000 different keys up to here"),
    "ever new keys within": (
        keys_of_their_own(4000, "attributes"),
        "'attributes' have 4,000 different keys",
    ),
    "two types": (lines({"file_name": "a", "x": 1}, {"file_name": "b", "x": [1]}), "metadata.jsonl:2: the column 'x'"),
    "a number of 5,000 digits": ('{"file_name": "a", "x": 1' + "0" * 5000 + "}", "metadata.jsonl:1: not JSON"),
    "half a character": ('{"file_name": "a", "x": "\\ud800"}', "metadata.jsonl:1: the column 'x' holds '\\ud800'"),
    "NUL in an id": (lines({"file_name": "a", "id": "a\0b"}), "metadata.jsonl:1: the id 'a\\x00b' has a NUL character"),
    "an endless id": (lines({"file_name": "a", "id": "x" * 5000}), "has more than 1,024 characters"),
    "an id twice": (lines({"file_name": "a", "id": "1"}, {"file_name": "b", "id": "1"}), "must be unique: '1' ("),
    "an id of three kinds": (lines({"file_name": "a", "id": True}), "the id is True"),
    "UTF-16": ('{"file_name": "a"}'.encode("utf-16"), "metadata.jsonl:1: not UTF-8 text (byte 1 of the line)"),
    "a zip": (b"PK\x03\x04" + bytes(100), "metadata.jsonl:1: not valid JSON"),
}


@pytest.mark.parametrize("name", JSONL)
def test_json_lines_that_are_refused(name: str, tmp_path: Path) -> None:
    content, said = JSONL[name]
    (tmp_path / "metadata.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(dataset, tmp_path)
    assert said in message
    assert str(tmp_path) in message


def test_json_lines_that_are_read(tmp_path: Path) -> None:
    """What is odd, and harmless: a byte-order mark, blank lines, a number that is missing, marks of direction, NUL."""
    rows = [
        '\ufeff{"file_name": "a", "price": NaN, "tags": ["\u202eevil\u202c", "👩\u200d👩\u200d👧", "e\u0301"]}',
        '',
        '{"file_name": "b", "price": 1.5, "tags": ["a\\u0000b", "=1+1"], "n": ' + "[" * 20 + "]" * 20 + "}",
        '{"file_name": "../../etc/passwd", "price": Infinity, "tags": []}\r',
    ]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = read(dataset, tmp_path)
    assert found["id"] == ["a", "b", "../../etc/passwd"]
    assert found["price"] == [None, 1.5, float("inf")]
    assert found["tags"] == [["\u202eevil\u202c", "👩\u200d👩\u200d👧", "e\u0301"], ["a\0b", "=1+1"], []]


CSV: dict[str, tuple[bytes, str]] = {
    "too few cells": (b"file_name,x\na,1\nb\n", "metadata.csv:3: 1 cells, but the header has 2."),
    "too many cells": (b"file_name,x\na,1,2\n", "metadata.csv:2: 3 cells, but the header has 2."),
    "an open quote": (b'file_name,x\na,"1\nb,2\n', "metadata.csv:2: not valid CSV"),
    "NUL": (b"file_name,x\na,\0\n", "metadata.csv:2: a NUL byte"),
    "a column twice": (b"file_name,x,x\n", "metadata.csv:1: the column 'x' occurs more than once."),
    "20,000 columns": (",".join(map(str, range(20_000))).encode(), "metadata.csv:1: 20,000 columns, more than 1,000."),
    "a long field": (b'file_name,x\na,"' + b"x\n" * 500_000 + b'"\n', "field larger than field limit"),
    "an HTML page": (b"<!doctype html>\n<p>404\n", "no column 'file_name'"),
}


@pytest.mark.parametrize("name", CSV)
def test_csv_that_is_refused(name: str, tmp_path: Path) -> None:
    content, said = CSV[name]
    (tmp_path / "metadata.csv").write_bytes(content)
    assert said in refusal(dataset, tmp_path)


@pytest.mark.parametrize(("name", "start"), [("metadata.jsonl", b'{"file_name": "'), ("metadata.csv", b'file_name\n"')])
def test_a_field_of_a_gigabyte(name: str, start: bytes, tmp_path: Path) -> None:
    """Written as a hole, which takes no disk."""
    with (tmp_path / name).open("wb") as file:
        file.write(start)
        file.truncate(GIGABYTE)
    assert "a line longer than 16 MiB" in refusal(dataset, tmp_path, megabytes=150)


def not_utf8() -> pa.Array:
    return pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe"))


def nested(depth: int) -> pa.Array:
    array = pa.array([1])
    for _ in range(depth):
        array = pa.StructArray.from_arrays([array], names=["x"])
    return array


def repeated_string(path: Path) -> None:
    """50,000 rows of one megabyte, which a dictionary holds once: 50 GB to whoever writes it out."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"file_name": text}), path, store_schema=False)


def repeated_number(path: Path) -> None:
    """135 million numbers in a few hundred kilobytes."""
    numbers = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([0] * 10**6, pa.int8()), pa.array([7]))] * 135)
    pq.write_table(pa.table({"file_name": numbers}), path, row_group_size=10**8, store_schema=False)


def repeated_tag(kind: pa.DataType) -> Callable[[Path], None]:
    """10,000 lists of a string of 200,000, in row groups of a few kilobytes."""

    def write(path: Path) -> None:
        table = pa.table({"tags": pa.array([["x" * 200_000]] * 500, kind)})
        with pq.ParquetWriter(path, table.schema) as writer:
            for _ in range(20):
                writer.write_table(table)

    return write


def table_of(**columns: object) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path)


PARQUET: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda path: path.write_bytes(b"PAR1" + bytes(100)), "not a Parquet file that can be read"),
    "a footer that lies": (lambda path: path.write_bytes(b"PAR1" + b"\xff" * 100 + b"\x40\0\0\0PAR1"), "not a Parquet"),
    "text that is none": (table_of(file_name=not_utf8()), "Invalid UTF8 sequence"),
    "text that is none, elsewhere": (table_of(file_name=["a"], tags=not_utf8()), "Invalid UTF8 sequence"),
    "one long string again and again": (repeated_string, "claims 52,428,800,000 bytes in a file of"),
    "one long tag again and again": (repeated_tag(pa.list_(pa.string())), "claims 2,000,000,000 bytes in a file of"),
    "in lists of one": (repeated_tag(pa.list_(pa.string(), 1)), "claims 2,000,000,000 bytes in a file of"),
    "one number again and again": (repeated_number, "claims 1,080,000,000 bytes in a file of"),
    "2,000 columns": (table_of(**{str(n): [n] for n in range(2000)}), "2,000 columns, more than 1,000"),
    "a column's name with a NUL": (table_of(**{"file\0_name": ["a"]}), "has a NUL character in its name"),
    "a name that is a number": (table_of(file_name=[1]), "metadata.parquet:row 1: file_name is 1"),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_that_is_refused(name: str, tmp_path: Path) -> None:
    write, said = PARQUET[name]
    write(tmp_path / "metadata.parquet")
    assert said in refusal(dataset, tmp_path, megabytes=400)


@pytest.mark.parametrize("depth", [30, 500])
def test_deep_types_in_parquet(depth: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"file_name": ["a"], "x": nested(depth)}), tmp_path / "metadata.parquet")
    if depth == 30:
        assert read(signals, tmp_path)["id"] == ["a"]
    else:
        said = refusal(signals, tmp_path)
        assert "too deeply nested" in said or "Invalid flatbuffers message" in said  # Arrow 15


def test_lists_and_mappings_in_several_row_groups_are_read(tmp_path: Path) -> None:
    """As DuckDB and Polars write them: pyarrow gives no dictionaries within lists over several row groups."""
    columns = {
        "file_name": [f"{row}.png" for row in range(40)],
        "tags": [[f"tag-{row % 7}", "sea"] for row in range(40)],
        "attributes": [{"colour": "red" if row % 2 else None} for row in range(40)],
    }
    pq.write_table(pa.table(columns), tmp_path / "metadata.parquet", row_group_size=9)
    found = read(signals, tmp_path)
    assert (found["tags"], found["attributes"]) == (columns["tags"], columns["attributes"])
