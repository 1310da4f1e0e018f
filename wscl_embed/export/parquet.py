"""``parquet``: one Parquet file for DuckDB, LanceDB, pandas, Polars.

Columns ``id`` (string), ``vector`` (list of D float32 or float16, of fixed size in Arrow) and, where the file has
clusters, ``cluster`` (int64, -1: none). In DuckDB ``vector::FLOAT[512]`` (with your D) is what its distances take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from wscl_embed.store import EmbeddingStore


def write(store: EmbeddingStore, output: Path, *, row_group: Annotated[int, Field(ge=1)] = 16_384) -> None:
    """Write row groups of ``row_group`` rows, one in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dim = store.embeddings.shape[1]
    value = pa.from_numpy_dtype(store.embeddings.dtype)
    fields = [pa.field("id", pa.string()), pa.field("vector", pa.list_(value, dim))]
    ids, labels = store.ids, store.labels
    if labels is not None:
        fields.append(pa.field("cluster", pa.int64()))
    schema = pa.schema(fields)
    # Dictionaries of embeddings would only take time: no two values are alike.
    with pq.ParquetWriter(output, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), row_group):
            rows = slice(start, start + row_group)
            values = pa.array(np.ascontiguousarray(store.embeddings[rows]).reshape(-1))
            arrays = [pa.array(ids[rows], pa.string()), pa.FixedSizeListArray.from_arrays(values, dim)]
            if labels is not None:
                arrays.append(pa.array(labels[rows]))
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=row_group)
