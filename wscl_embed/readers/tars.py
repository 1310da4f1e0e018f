"""WebDataset: tar files whose members with a common key are one record. Nothing is ever extracted to disk."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from wscl_embed.errors import InputError
from wscl_embed.readers.folders import IMAGE_SUFFIXES
from wscl_embed.readers.json_text import parse_json
from wscl_embed.readers.metadata import MAX_LINE, table_of
from wscl_embed.readers.source import Source, check_storable, check_utf8, not_cached

MAX_SHOWN = 200  # characters of a key, in an error
# As in WebDataset: the key ends at the first dot of the file name, the rest says what the member is.
MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")

# Where an image lies: which tar, offset of the content, its length, name of the member (None: there is no image).
Span = tuple[int, int, int, str | None]


@dataclass
class Sample:
    """One record: its columns but for the image, and where the image lies."""

    key: str
    path: Path
    image: Span
    fields: dict[str, Any] = field(default_factory=dict)


def read_tars(paths: Sequence[Path]) -> Source:
    """Read uncompressed tar files.

    The image is the member with a bare image extension (``jpg``, ``png``, ...). The items of a ``json`` mapping become
    columns; other ``json``, ``txt`` and ``cls`` (an integer, where it is one) become columns of that name. Members of
    other kinds, links and devices are left out. The id is the key, with the name of the tar before it where keys
    repeat between tars. Images are copied to the cache of Hugging Face ``datasets`` and memory-mapped from there.

    Raises:
        InputError: a file that is no tar or is truncated, a member of text that does not parse, a record with two
            members of one kind or two images.
    """
    import datasets

    samples = [sample for shard, path in enumerate(paths) for sample in scan_tar(path, shard)]
    if not samples:
        raise InputError(f"{paths[0]}: no records; WebDataset names its members like 0001.jpg and 0001.json.")

    def place(row: int) -> str:
        return f"{samples[row].path}: {samples[row].key[:MAX_SHOWN]}"

    check_storable([sample.key for sample in samples], place)
    columns = table_of([sample.fields for sample in samples], place)
    if "image" in columns.column_names:
        raise InputError(f"{paths[0]}: the json members have a key 'image'; rename it, images go by that name.")
    try:
        images = datasets.Dataset.from_generator(
            read_spans,
            features=datasets.Features({"image": datasets.Image(decode=False)}),
            gen_kwargs={
                # Tuples: of lists, `datasets` makes shards. Sizes and times keep a tar written anew from an old cache.
                "paths": tuple(str(path.resolve()) for path in paths),
                "stamps": tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths),
                "spans": tuple(sample.image for sample in samples),
            },
        )
    except Exception as error:  # `datasets` wraps what went wrong, such as a full disk.
        raise not_cached(error, f"{paths[0]}: cannot be copied to the cache of datasets") from error
    repeated = max(Counter(sample.key for sample in samples).values()) > 1
    ids = [f"{sample.path.stem}/{sample.key}" if repeated else sample.key for sample in samples]
    if columns.num_columns:
        images = datasets.concatenate_datasets([images, datasets.Dataset(columns)], axis=1)
    return Source(images, ids, place)


class Headers(FileIO):
    """A tar read for its headers and short members.

    `tarfile` takes a header's word for how long the next one is and for where it lies: a few bytes would have it fill
    the memory, or go round in circles.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_LINE:
            raise tarfile.ReadError(f"a header that claims {size} bytes")
        return super().read(size) or b""


def scan_tar(path: Path, shard: int) -> list[Sample]:
    """The records of one tar, in order; of images only the place is noted."""
    samples: dict[str, Sample] = {}
    behind = -1
    try:
        with Headers(path) as headers, tarfile.open(fileobj=headers, mode="r:") as archive:
            for member in archive:
                if member.size < 0 or member.offset_data <= behind:
                    raise tarfile.ReadError(f"the member {member.name!r} lies before the one before it")
                behind = member.offset_data
                match = MEMBER.fullmatch(member.name.removeprefix("./"))
                # A sparse member may claim any size without holding it.
                if match is None or not member.isfile() or member.issparse():
                    continue
                check_utf8(member.name, path)
                key, kind = match[1], match[2].lower()
                sample = samples.setdefault(key, Sample(key, path, (shard, 0, 0, None)))
                if f".{kind}" in IMAGE_SUFFIXES:
                    if sample.image[3] is not None:
                        raise InputError(f"{path}: {key}: two images, {sample.image[3]} and {member.name}.")
                    sample.image = (shard, member.offset_data, member.size, member.name)
                elif kind in ("json", "txt", "cls"):
                    if member.size > MAX_LINE:
                        raise InputError(f"{path}: {member.name}: longer than {MAX_LINE >> 20} MiB.")
                    handle = archive.extractfile(member)
                    assert handle is not None  # it is a regular file
                    add_field(sample, kind, handle.read(), f"{path}: {member.name}")
            check_end(headers, archive.offset)
    except tarfile.TarError as error:
        raise InputError(f"{path}: not an uncompressed tar file, or a truncated one ({error}).") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return list(samples.values())


def check_end(headers: Headers, end: int) -> None:
    """See that an empty block stands where the members end, and nothing behind it.

    `tarfile` takes a header it cannot read, and a file cut off between two members, for the end: all records behind
    it would be missing and nobody told.
    """
    headers.seek(end)
    if headers.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged or cut off at byte {end:,}")
    if headers.read(MAX_LINE).strip(b"\0"):
        raise tarfile.ReadError(f"more follows behind its end at byte {end:,}: tars joined by cat? Give them apart")


def add_field(sample: Sample, kind: str, content: bytes, place: str) -> None:
    """Put the content of a json, txt or cls member into the columns of ``sample``."""
    try:
        text = content.decode("utf-8-sig")
        value = parse_json(text) if kind == "json" else text
    except ValueError as error:
        raise InputError(
            f"{place}: not {'JSON' if kind == 'json' else 'UTF-8 text'} that can be read ({error})."
        ) from error
    if kind == "cls":
        value = text.strip()
        value = int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else value
    new = value if kind == "json" and isinstance(value, dict) else {kind: value}
    twice = new.keys() & sample.fields.keys()
    if twice:
        raise InputError(f"{place}: the record has a column {min(twice)!r} already.")
    sample.fields.update(new)


def read_spans(
    paths: Sequence[str], stamps: Sequence[tuple[int, int]], spans: Sequence[Span]
) -> Iterator[dict[str, Any]]:
    """Yield the images of all records in order, from the tars ``paths``; ``stamps`` only name the cache."""
    for shard, group in groupby(spans, key=itemgetter(0)):
        with Path(paths[shard]).open("rb") as handle:
            for _, offset, size, name in group:
                handle.seek(offset)
                yield {"image": None if name is None else {"bytes": handle.read(size), "path": name}}
