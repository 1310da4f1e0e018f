"""What is refused about an HDF5 file from a stranger, before anything in it is read.

HDF5 files can name other files to read (external links, external storage, virtual datasets), claim shapes that no
memory holds, and nest or repeat groups without end. An embedding file does none of that, so all of it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.errors import InputError
from wscl_embed.store.chunks import chunks_of, chunks_problem

if TYPE_CHECKING:
    import h5py

MAX_DEPTH = 8
MAX_OBJECTS = 1000
MAX_ATTRIBUTES = 200
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # those every h5py has
PACKING = {1, 32000}  # those that make fewer bytes
MAX_RATIO = 100  # of what a compressed dataset unpacks to and what it takes on disk; embeddings reach 2
SMALL = 1 << 24  # bytes that may be unpacked from anything


def check_safe(file: h5py.File, path: Path) -> None:
    """See that reading ``file`` touches nothing but ``path`` and needs no more memory than its size explains.

    Raises:
        InputError: names the object and what is wrong with it.
    """
    import h5py

    size = path.stat().st_size
    for name, thing in walk(file):
        problem = attribute_problem(thing, size)
        if problem is None and isinstance(thing, h5py.Dataset):
            problem = dataset_problem(thing, size)
        if problem:
            raise InputError(f"{path}: refused, {name} {problem}.")


def walk(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Every group and dataset with its name; follows hard links only, each object once.

    Raises:
        InputError: another kind of link or object, or more or deeper ones than an embedding file has.
    """
    import h5py

    waiting: list[tuple[h5py.Group, int]] = [(file["/"], 0)]
    seen = {h5py.h5o.get_info(file.id).addr}
    yield "/", waiting[0][0]
    while waiting:
        group, depth = waiting.pop()
        if len(seen) + len(group) > MAX_OBJECTS or depth > MAX_DEPTH:
            raise InputError(f"{file.filename}: refused, more than {MAX_OBJECTS} objects, or groups too deep.")
        for key in group:
            if not isinstance(key, str):  # h5py gives the bytes
                raise InputError(f"{file.filename}: refused, {group.name} has a name in it that is not UTF-8.")
            name = f"{group.name.rstrip('/')}/{key}"
            kind = group.id.links.get_info(key.encode(errors="surrogateescape")).type
            if kind != h5py.h5l.TYPE_HARD:
                raise InputError(f"{file.filename}: refused, {name} is a link and could lead anywhere.")
            thing = group[key]
            address = h5py.h5o.get_info(thing.id).addr
            if address in seen or not isinstance(thing, (h5py.Group, h5py.Dataset)):
                raise InputError(f"{file.filename}: refused, {name} is one object under two names, or none of ours.")
            seen.add(address)
            yield name, thing
            if isinstance(thing, h5py.Group):
                waiting.append((thing, depth + 1))


def dataset_problem(dataset: h5py.Dataset, file_size: int) -> str | None:
    """What is wrong with a dataset; None when nothing is."""
    import h5py

    plan = dataset.id.get_create_plist()  # looked at first: the shape of a virtual dataset would open its sources
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        return "is a virtual dataset: its rows are taken from elsewhere"
    if plan.get_external_count():
        return "keeps its rows in another file"
    listed = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    filters = set(listed)
    if filters - FILTERS.keys():
        return f"is compressed by a filter this package does not run (number {min(filters - FILTERS.keys())})"
    if len(filters & PACKING) > 1 or len(listed) > len(filters):
        return "is compressed twice"
    problem = type_problem(dataset.id.get_type())
    if problem or dataset.shape is None:
        return problem or "has no shape"
    stored = int(dataset.id.get_storage_size())
    claimed = math.prod(dataset.shape) * dataset.id.get_type().get_size()
    if stored > file_size or claimed > (max(SMALL, MAX_RATIO * stored) if filters else stored):
        return f"claims {claimed:,} bytes of which {stored:,} are stored in a file of {file_size:,}"
    if dataset.chunks is not None and (problem := chunks_problem(dataset, bool(filters & PACKING), file_size)):
        return problem
    if h5py.check_string_dtype(dataset.dtype) and dataset.id.get_type().is_variable_str():
        return variable_problem(dataset, bool(filters), file_size)
    return None


def type_problem(kind: h5py.h5t.TypeID) -> str | None:
    """What is wrong with a type: only numbers and strings are read."""
    import h5py

    allowed = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)  # h5py writes bool as an enum
    return None if kind.get_class() in allowed else "holds neither numbers nor strings"


def variable_problem(dataset: h5py.Dataset, filtered: bool, file_size: int) -> str | None:
    """Whether the strings of a dataset are together longer than the file: many may point to the same long one.

    A string of variable length is stored as its length and address (4 + 8 + 4 bytes); only those are looked at.
    """
    if filtered:
        return "is compressed, and its strings have no fixed length"
    if dataset.chunks is None:
        offsets = [(dataset.id.get_offset(), dataset.size)] if dataset.size else []
        if offsets and offsets[0][0] is None:
            return "keeps strings of no fixed length in its header"
    else:
        rows = int(np.prod(dataset.chunks))
        offsets = [(chunk.offset, rows) for chunk in chunks_of(dataset)]
    total = 0
    for offset, rows in offsets:
        lengths = np.fromfile(dataset.file.filename, "<u4", count=4 * rows, offset=offset)[::4]
        total += int(lengths.sum(dtype=np.int64))
    return f"claims strings of {total:,} bytes in a file of {file_size:,}" if total > file_size else None


def attribute_problem(thing: h5py.Group | h5py.Dataset, file_size: int) -> str | None:
    """What is wrong with the attributes of an object."""
    import h5py

    if h5py.h5a.get_num_attrs(thing.id) > MAX_ATTRIBUTES:
        return f"has more than {MAX_ATTRIBUTES} attributes"
    for number in range(h5py.h5a.get_num_attrs(thing.id)):
        attribute = h5py.h5a.open(thing.id, index=number)
        kind, name = attribute.get_type(), attribute.name.decode(errors="replace")
        several = attribute.shape != () and kind.get_class() == h5py.h5t.STRING
        if type_problem(kind) or several or attribute.get_storage_size() > min(SMALL, file_size):
            return f"has an attribute that is neither numbers nor a string: {name!r}"
    return None
