"""The Parquet file of `Clusters`, read with suspicion: it may come with somebody else's run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from scipy import sparse
from typing_extensions import TypedDict

from wscl_embed.cluster_table import TABLE_COLUMNS
from wscl_embed.errors import InputError
from wscl_embed.raw_labels import RawLabels, load_raw

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMAT = "wscl-embed/clusters"
FORMAT_VERSION = 1

Parts = tuple[list[str], sparse.csr_array, "pd.DataFrame", tuple[RawLabels, ...]]


class TableRow(TypedDict):
    """A row of the table of clusters."""

    name: str
    source: str
    level: int
    size: int
    terms: list[str]


def read_parts(path: str | Path | BinaryIO) -> Parts:
    """What `wscl_embed.Clusters` is made of, from the file its ``save`` wrote.

    Raises:
        InputError: a file that is not there, not Parquet, not of this format and version, or whose parts do not fit.
    """
    import pyarrow as pa

    from wscl_embed.readers.parquet import read_parquet_table
    from wscl_embed.readers.source import innermost

    try:
        table = read_parquet_table(Path(path) if isinstance(path, str) else path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; `wscl-embed cluster` writes one.") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({innermost(error)}).") from error
    header = read_header(table)
    if header.get("format") != FORMAT or header.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: not a clusters file of version {FORMAT_VERSION} "
            f"(format {header.get('format')!r}, version {header.get('format_version')!r})."
        )
    try:
        return parts_of(table, header)
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: a clusters file whose parts do not fit one another ({said}).") from error


def read_header(table: pa.Table) -> dict[str, Any]:
    """The JSON in the metadata of a clusters file; empty where there is none."""
    try:
        header = json.loads((table.schema.metadata or {}).get(b"wscl_embed", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def parts_of(table: pa.Table, header: dict[str, Any]) -> Parts:
    """The ids, memberships, cluster table and raw labels in ``table``; an error of some kind where they do not fit."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from pydantic import TypeAdapter

    rows = TypeAdapter(list[TableRow]).validate_python(header["table"])
    ids, members, weights = (table.column(name).combine_chunks() for name in ("id", "clusters", "weights"))
    if not pa.types.is_string(ids.type) or any(column.null_count for column in (ids, members, weights)):
        raise ValueError("ids must be strings, and nothing null")
    if not members.offsets.equals(weights.offsets):
        raise ValueError("an image has as many weights as clusters")
    data = weights.flatten().to_numpy().astype(np.float32, casting="same_kind")
    indices = members.flatten().to_numpy().astype(np.int32, casting="same_kind")
    membership = sparse.csr_array((data, indices, members.offsets.to_numpy()), shape=(len(table), len(rows)))
    membership.check_format(full_check=True)  # or SciPy trusts the columns' numbers, and reads beyond its arrays
    frame = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    return ids.to_pylist(), membership, frame, load_raw(table, header.get("noise", []))
