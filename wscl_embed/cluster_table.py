"""The table of clusters: one row a column of the membership matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TABLE_COLUMNS = ["name", "source", "level", "size", "terms"]


def cluster_table(
    membership: sparse.csr_array,
    *,
    source: str,
    level: int = 0,
    names: Sequence[str] | None = None,
    terms: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """The table of the K columns of ``membership`` (N, K); names default to ``source-0`` .. ``source-K-1``.

    Raises:
        InputError: names or terms of another number than K.
    """
    import pandas as pd

    k = membership.shape[1]
    for what, given in (("names", names), ("terms", terms)):
        if given is not None and len(given) != k:
            raise InputError(f"{source}: {len(given)} {what} for {k} clusters; give one a cluster.")
    return pd.DataFrame(
        {
            "name": list(names) if names is not None else [f"{source}-{column}" for column in range(k)],
            "source": [source] * k,
            "level": [level] * k,
            "size": column_sizes(membership),
            "terms": [list(words) for words in terms] if terms is not None else [[] for _ in range(k)],
        },
        columns=TABLE_COLUMNS,
    )


def with_unique_names(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables of several clusterings, in which no two clusters have one name (see `Clusters.combine`).

    >>> one = cluster_table(sparse.csr_array(np.eye(2)), source="toy")
    >>> [name for table in with_unique_names([one, one]) for name in table["name"]]
    ['toy.1-0', 'toy.1-1', 'toy.2-0', 'toy.2-1']
    """
    blocks = Counter(block for table in tables for block in set(zip(table["source"], table["level"], strict=True)))
    repeated = {source for (source, _), count in blocks.items() if count > 1}
    numbers: Counter[str] = Counter()
    renamed = []
    for table in tables:
        numbers.update(repeated & set(table["source"]))
        called = {source: f"{source}.{numbers[source]}" for source in repeated}
        sources = [called.get(source, source) for source in table["source"]]
        # The names an adapter's clusters have by default begin with it.
        names = [
            f"{new}{name.removeprefix(old)}" if name.startswith(f"{old}-") else name
            for name, old, new in zip(table["name"], table["source"], sources, strict=True)
        ]
        renamed.append(table.assign(name=names, source=sources))
    occurs = Counter(name for table in renamed for name in table["name"])
    for table in renamed:
        pairs = zip(table["name"], table["source"], strict=True)
        table["name"] = [f"{source}:{name}" if occurs[name] > 1 else name for name, source in pairs]
    return renamed


def column_sizes(membership: sparse.csr_array) -> list[int]:
    """How many images have an entry in each column, of a matrix of any layout."""
    entries = sparse.coo_array(membership)
    return np.bincount(entries.col[entries.data != 0], minlength=entries.shape[1]).tolist()  # type: ignore[no-any-return]
