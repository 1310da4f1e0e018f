"""``clip-retrieval``: the folder https://github.com/rom1504/clip-retrieval writes, and autofaiss builds an index from.

``img_emb/img_emb_0.npy`` (n, D), ``metadata/metadata_0.parquet`` with the column ``image_path`` (the ids) and, where
the file has clusters, ``cluster``; then ``_1`` and so on, the numbers padded with zeros. Where it has captions,
``text_emb/text_emb_0.npy`` (n, D) besides, row by row those of the images, and the column ``has_text``: a row of zeros
is an image without a caption, which clip-retrieval itself would have left out. The file has no captions in words, so
there is no column ``caption``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from wscl_embed.store import EmbeddingStore


def write(store: EmbeddingStore, output: Path, *, shard_rows: Annotated[int, Field(ge=1)] = 1_000_000) -> None:
    """Write shards of ``shard_rows`` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids, labels, has_text = store.ids, store.labels, store.has_text
    matrices = {"img_emb": store.embeddings}
    if store.text_embeddings is not None:
        matrices["text_emb"] = store.text_embeddings
    starts = range(0, len(ids), shard_rows)
    digits = len(str(max(1, len(starts) - 1)))
    for folder in (*matrices, "metadata"):
        (output / folder).mkdir()
    for number, start in enumerate(starts):
        rows = slice(start, start + shard_rows)
        for name, matrix in matrices.items():
            np.save(output / name / f"{name}_{number:0{digits}d}.npy", matrix[rows])
        columns = {"image_path": pa.array(ids[rows], pa.string())}
        if labels is not None:
            columns["cluster"] = pa.array(labels[rows])
        if has_text is not None:
            columns["has_text"] = pa.array(has_text[rows])
        pq.write_table(pa.table(columns), output / "metadata" / f"metadata_{number:0{digits}d}.parquet")
