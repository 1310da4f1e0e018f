"""Rows scaled to unit length, in the precision they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from wscl_embed.errors import InputError

BLOCK_BYTES = 1 << 20  # what is scaled and written at once: stays in the cache
ONE_THREAD = 1 << 15  # values torch converts without its other threads: on a busy machine it waits for them
UNIT = {"float32": 1e-6, "float16": 5e-4}  # a length this close to 1 is not scaled: only the last bits would change


def unit_blocks(
    embeddings: NDArray[np.floating], ids: Sequence[str], dtype: npt.DTypeLike, what: str
) -> Iterator[NDArray[np.floating]]:
    """(b, D) rows scaled to unit length, a block after the other; those that are near enough, and rows of zeros, stay.

    Of several blocks the next one is made in a thread while the caller writes one, which takes about as long.

    Args:
        embeddings: (b, D) of any float type.
        ids: of the rows, for the error.
        dtype: float32 or float16, of the result.
        what: the rows are, for the error.

    Raises:
        InputError: a row that is not finite (names the id).
    """
    rows = np.asarray(embeddings)
    if rows.dtype not in (np.float32, np.float16):
        rows = rows.astype(np.float32)
    near = UNIT[np.dtype(dtype).name]
    step = max(1, BLOCK_BYTES // (4 * rows.shape[1]))

    def scaled(start: int) -> NDArray[np.floating]:
        block = rows[start : start + step]
        single = converted(block, np.float32)
        lengths = _lengths(single, ids[start : start + step], what)
        if np.abs(lengths - 1).max(initial=0) > near:
            block = single * (1 / np.maximum(lengths, np.finfo(np.float32).tiny))[:, None]
        return converted(block, dtype)

    starts = range(0, len(rows), step)
    yield from _ahead(scaled, starts) if len(starts) > 1 else map(scaled, starts)


def unit_query(query: npt.ArrayLike, dim: int, path: Path) -> NDArray[np.float32]:
    """(D,) float32 of unit length, from a query of any length and type of numbers; zeros stay zeros.

    Raises:
        InputError: another number of dimensions than ``path`` holds, or a query that is not finite.

    >>> unit_query(np.array([300.0, 400.0], np.float16), 2, Path("toy.h5")).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    wide = np.asarray(query, dtype=np.float64)  # the squares of halves soon overflow
    if wide.shape != (dim,):
        raise InputError(f"{path} holds embeddings of {dim} dimensions, not {wide.shape}.")
    if not np.isfinite(wide).all():
        raise InputError("the query is not finite.")
    wide = wide / (np.abs(wide).max(initial=0) or 1)
    return np.asarray(wide / (np.linalg.norm(wide) or 1), dtype=np.float32)


def _ahead(make: Callable[[int], NDArray[np.floating]], starts: range) -> Iterator[NDArray[np.floating]]:
    """``make`` of each, in a thread that is one ahead of the caller."""
    coming: Future[NDArray[np.floating]] | None = None
    with ThreadPoolExecutor(1) as thread:
        for start in starts:
            ready, coming = coming, thread.submit(make, start)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def converted(rows: NDArray[np.floating], dtype: npt.DTypeLike) -> NDArray[np.floating]:
    """Rows of float32 or float16 as one of these, contiguous: to NumPy's bits, by torch, which is ten times as fast."""
    rows = np.ascontiguousarray(rows)
    if rows.dtype == dtype:
        return rows
    import torch

    result = np.empty(rows.shape, dtype)
    source = torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # it warns of what cannot be written to
    pieces = (torch.split(whole.view(-1), ONE_THREAD) for whole in (source, torch.from_numpy(result)))
    for given, made in zip(*pieces, strict=True):
        made.copy_(given)
    return result


def _lengths(rows: NDArray[np.floating], ids: Sequence[str], what: str) -> NDArray[np.float32]:
    """(b,) Euclidean lengths."""
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        squares = np.vecdot(rows, rows) if hasattr(np, "vecdot") else np.einsum("ij,ij->i", rows, rows)
    lengths: NDArray[np.float32] = np.sqrt(squares)
    odd = np.flatnonzero(~np.isfinite(squares) | (squares < 1e-30))  # perhaps outside float32's squares only
    if len(odd):
        wide = np.linalg.norm(rows[odd].astype(np.float64), axis=1)
        if not np.isfinite(wide).all():
            raise InputError(f"the {what} of image {ids[odd[int(np.argmin(np.isfinite(wide)))]]!r} is not finite.")
        lengths[odd] = wide
    return lengths
