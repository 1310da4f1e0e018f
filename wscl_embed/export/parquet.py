"""``parquet``: one Parquet file for DuckDB, LanceDB, pandas, Polars.

Columns ``id`` (string), ``vector`` (list of D float32 or float16, of fixed size in Arrow) and, where the file has
captions, ``text_vector`` (the same) and ``has_text`` (bool: without a caption the vector is zeros, since few versions
of Arrow can write a null of fixed size), where it has clusters, ``cluster`` (int64, -1: none). In DuckDB
``vector::FLOAT[512]`` (with your D) is what its distances take.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wscl_embed.limits import MAX_INT
from wscl_embed.store import EmbeddingStore

if TYPE_CHECKING:
    import pyarrow as pa


def write(store: EmbeddingStore, output: Path, *, row_group: Annotated[int, Field(ge=1, le=MAX_INT)] = 16_384) -> None:
    """Write row groups of ``row_group`` rows, one in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dim = store.embeddings.shape[1]
    value = pa.from_numpy_dtype(store.embeddings.dtype)
    fields = [pa.field("id", pa.string()), pa.field("vector", pa.list_(value, dim))]
    ids, labels, text, has_text = store.ids, store.labels, store.text_embeddings, store.has_text
    if text is not None:
        fields.append(pa.field("text_vector", pa.list_(pa.from_numpy_dtype(text.dtype), dim)))
        fields.append(pa.field("has_text", pa.bool_()))
    if labels is not None:
        fields.append(pa.field("cluster", pa.int64()))
    schema = pa.schema(fields)
    # Dictionaries of embeddings would only take time: no two values are alike.
    with pq.ParquetWriter(output, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), row_group):
            rows = slice(start, start + row_group)
            arrays = [pa.array(ids[rows], pa.string()), vectors(store.embeddings[rows])]
            if text is not None and has_text is not None:
                arrays += [vectors(text[rows]), pa.array(has_text[rows])]
            if labels is not None:
                arrays.append(pa.array(labels[rows]))
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=row_group)


def vectors(rows: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """(b, D) rows as Arrow has lists of fixed size."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
