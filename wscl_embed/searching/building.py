"""Building an index: the kind, the effort a target needs, and what that gives and costs, on queries it never saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError
from wscl_embed.progress import say, track
from wscl_embed.searching.index_file import Kind, VectorIndex, load_faiss
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.exact import nearest

EXACT_ROWS = 50_000
"""Up to here `auto` builds nothing: looking at each row takes milliseconds."""
GRAPH_ROWS = 2_000_000
"""Up to here `auto` builds a graph, whose memory and time to build grow faster than those of inverted lists."""
FEWEST_ROWS = 100
K = 10
MAX_QUERIES = 1000
TIMED_QUERIES = 100
TIMED_SECONDS = 20.0  # of ten million rows exact search takes seconds a query
LINKS, BUILD_EFFORT = 32, 100  # of a graph (HNSW's M and efConstruction)
ROWS_A_LIST = 256  # at most, that k-means is trained on; its own default
MANY_LISTS = 4096
"""From here centroids are found in two levels, and the nearest of them by a graph: looking at each costs n^1.5."""
ITERATIONS = 10  # of k-means; what faiss takes for inverted lists
ADD_ROWS = 16_384


@dataclass(frozen=True)
class IndexReport:
    """What an index gives and costs.

    ================ =============================================================================================
    ``kind``         hnsw, ivf, or exact: no index
    ``effort``       of a search (efSearch, nprobe), the least of those tried that reaches ``target``
    ``rows``         N
    ``target``       recall@10 asked for
    ``recall``       recall@10 against exact search by kind of query, ``image`` and ``text``
    ``queries``      how many there were of each
    ``index_ms``     milliseconds a query, one at a time; ``exact_ms``: of exact search. None where not measured
    ``build_seconds`` to build the index
    ================ =============================================================================================
    """

    kind: Literal["hnsw", "ivf", "exact"]
    rows: int
    target: float
    exact_ms: float
    effort: int = 0
    recall: dict[str, float] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    index_ms: float | None = None
    build_seconds: float = 0.0

    @property
    def reached(self) -> bool:
        """Whether every kind of query has the recall asked for."""
        return all(value >= self.target for value in self.recall.values())

    @property
    def speedup(self) -> float | None:
        """How many times faster than exact search."""
        return self.exact_ms / self.index_ms if self.index_ms else None


def choose_kind(kind: str, rows: int) -> Literal["hnsw", "ivf", "exact"]:
    """What ``auto`` builds over so many rows.

    >>> [choose_kind("auto", rows) for rows in (10_000, 200_000, 10_000_000)]
    ['exact', 'hnsw', 'ivf']
    """
    if kind in ("hnsw", "ivf"):
        return kind  # type: ignore[return-value]
    return "exact" if rows <= EXACT_ROWS else "hnsw" if rows <= GRAPH_ROWS else "ivf"


def build(
    store: EmbeddingStore, kind: Kind, target: float, texts: NDArray[np.floating] | None = None
) -> tuple[VectorIndex, IndexReport]:
    """Build an index over all rows of ``store``.

    Some of the rows are left out at first: with them the index is measured, so that it has not seen its queries, and
    then they are added.

    Args:
        texts: (m, D) embeddings of texts. They lie elsewhere than images do, and an index built from images finds less
            of what they are looking for; so they are measured apart.

    Raises:
        InputError: too few rows, or faiss is not installed.
    """
    n = len(store)
    if n < FEWEST_ROWS:
        raise InputError(f"{store.path}: {n} rows are too few for an index (at least {FEWEST_ROWS}).")
    held = np.sort(np.random.default_rng(0).choice(n, min(MAX_QUERIES, n // 10), replace=False))
    base = np.ones(n, dtype=np.bool_)
    base[held] = False
    start = time.perf_counter()
    index = VectorIndex(_empty(store, kind, base), kind, 1)
    with track("building the index", n) as advance:
        for first in range(0, n, ADD_ROWS):
            _add(index.index, store, first + np.flatnonzero(base[first : first + ADD_ROWS]))
            advance(ADD_ROWS)
    seconds = time.perf_counter() - start
    queries = {"image": _rows(store, held)}
    if texts is not None and len(texts):
        queries["text"] = np.asarray(texts, dtype=np.float32)
    recall = _find_effort(index, store, queries, base, target)
    exact_ms, index_ms = time_queries(store, queries["image"][:TIMED_QUERIES], index)
    _add(index.index, store, held)
    counts = {name: len(rows) for name, rows in queries.items()}
    return index, IndexReport(kind, n, target, exact_ms, index.effort, recall, counts, index_ms, seconds)


def _empty(store: EmbeddingStore, kind: Kind, base: NDArray[np.bool_]) -> Any:
    """An index without rows; inverted lists have their centroids."""
    faiss = load_faiss()
    dim = store.embeddings.shape[1]
    if kind == "hnsw":
        return faiss.IndexIDMap(_graph(dim))
    lists = number_of_lists(int(base.sum()))
    index = _empty_lists(dim, lists, store.embeddings.dtype)
    rows = np.flatnonzero(base)
    some = np.sort(np.random.default_rng(1).choice(rows, min(len(rows), ROWS_A_LIST * lists), replace=False))
    say(f"finding the centroids of {lists:,} lists among {len(some):,} rows; the time grows with both")
    found = _rows(store, some)
    if lists >= MANY_LISTS:
        found = _centroids(found, lists)
        index.quantizer.add(found)  # so that `train` finds nothing left to do
    index.train(found)
    return index


def _centroids(rows: NDArray[np.float32], lists: int) -> NDArray[np.float32]:
    """(lists, D) directions rows gather around: k-means of sqrt(lists) clusters, and of each by itself."""
    from faiss.contrib.clustering import two_level_clustering

    first = int(lists**0.5)
    kept = {"clustering_niter": ITERATIONS, "spherical": True, "min_points_per_centroid": 1}  # 1: else it warns
    centroids, _ = two_level_clustering(rows, first, lists, **kept)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(centroids, dtype=np.float32)


def _graph(dim: int) -> Any:
    faiss = load_faiss()
    graph = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_EFFORT
    return graph


def _empty_lists(dim: int, lists: int, dtype: np.dtype[Any]) -> Any:
    """Inverted lists of rows in the precision they are stored in, so that halves take half the memory."""
    faiss = load_faiss()
    centroids = _graph(dim) if lists >= MANY_LISTS else faiss.IndexFlatIP(dim)
    if dtype != np.float16:
        return faiss.IndexIVFFlat(centroids, dim, lists, faiss.METRIC_INNER_PRODUCT)
    half, by_residual = faiss.ScalarQuantizer.QT_fp16, False
    return faiss.IndexIVFScalarQuantizer(centroids, dim, lists, half, faiss.METRIC_INNER_PRODUCT, by_residual)


def number_of_lists(rows: int) -> int:
    """Of inverted lists: 4 sqrt(n), but no fewer than the 39 rows each that faiss wants to find their centroids by.

    >>> number_of_lists(1_000_000), number_of_lists(200)
    (4000, 5)
    """
    return max(1, min(int(4 * rows**0.5), rows // 39))


def _rows(store: EmbeddingStore, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(store.embeddings[rows], dtype=np.float32)


def _add(index: Any, store: EmbeddingStore, rows: NDArray[np.int64]) -> None:
    if len(rows):
        index.add_with_ids(_rows(store, rows), rows)


def _find_effort(
    index: VectorIndex,
    store: EmbeddingStore,
    queries: dict[str, NDArray[np.float32]],
    base: NDArray[np.bool_],
    target: float,
) -> dict[str, float]:
    """Set the least effort that gives all kinds of queries the recall ``target``, or the greatest; the recalls."""
    k = min(K, int(base.sum()))
    truth = {name: nearest(rows, store.embeddings, k, passing=base)[1] for name, rows in queries.items()}
    recall: dict[str, float] = {}
    for effort in _efforts(index):
        index.effort = effort
        recall = {name: recall_at(truth[name], index.search(rows, k)[1]) for name, rows in queries.items()}
        if min(recall.values()) >= target:
            break
    return recall


def _efforts(index: VectorIndex) -> list[int]:
    """Powers of two: up to 4096 rows looked at in a graph, up to all lists."""
    if index.kind == "hnsw":
        return [2**power for power in range(4, 13)]
    lists = int(index.index.nlist)
    return [*(2**power for power in range(13) if 2**power < lists), lists]


def recall_at(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """The mean share of the k rows in ``truth`` (q, k) that are in ``found`` (q, k).

    >>> recall_at(np.array([[1, 2], [3, 4]]), np.array([[2, 9], [4, 3]]))
    0.75
    """
    return float(np.mean((truth[:, :, None] == found[:, None, :]).any(axis=2)))


def time_queries(store: EmbeddingStore, queries: NDArray[np.float32], index: VectorIndex) -> tuple[float, float]:
    """Median milliseconds a query by exact search and by ``index``, which take turns."""
    pairs, start = [], time.perf_counter()
    for query in queries:
        pairs.append(
            (milliseconds(nearest, query[None], store.embeddings, K), milliseconds(index.search, query[None], K))
        )
        if time.perf_counter() - start > TIMED_SECONDS:
            break
    exact, approximate = np.median(pairs, axis=0)
    return float(exact), float(approximate)


def exact_milliseconds(store: EmbeddingStore) -> float:
    """Median milliseconds of exact search for one row."""
    queries = _rows(store, np.arange(min(len(store), TIMED_QUERIES)))
    times = [milliseconds(nearest, query[None], store.embeddings, K) for query in queries]
    return float(np.median(times)) if times else 0.0


def milliseconds(job: Callable[..., object], *arguments: object) -> float:
    """What ``job`` takes."""
    start = time.perf_counter()
    job(*arguments)
    return (time.perf_counter() - start) * 1000
