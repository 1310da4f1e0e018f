"""The embedding in two dimensions: t-SNE, started from PCA, by openTSNE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import import_extra

SAMPLE = 5_000  # rows t-SNE arranges; the others are placed among them
DIMENSIONS = 50  # of the PCA that t-SNE starts from
PERPLEXITY = 30
STEPS = (75, 225)  # with early exaggeration, without: keeps as many neighbours as openTSNE's 250 and 500
ACCURACY = 0.8  # Barnes and Hut's theta; likewise
FULL_SCALE = np.iinfo(np.uint16).max


def map_coordinates(embeddings: NDArray[np.floating], *, seed: int = 0, sample: int = SAMPLE) -> NDArray[np.uint16]:
    """Coordinates of n embeddings on a plane, 0 to 65535 along the longer side; similar ones lie together.

    t-SNE (van der Maaten and Hinton, 2008) over the first 50 principal components of the unit vectors, initialised by
    PCA (Kobak and Berens, "The art of using t-SNE for single-cell transcriptomics", 2019), of at most ``sample`` rows
    drawn at random. Each other row starts where its nearest neighbour among these lies, and t-SNE's own forces move
    it a little, so that the time grows with ``sample`` and only slowly with n.

    Args:
        embeddings: (n, D).
        seed: of the draw and of t-SNE.
        sample: see above.

    Returns:
        (n, 2).

    Raises:
        MissingExtraError: openTSNE is not installed.
    """
    rng = np.random.default_rng(seed)
    n = len(embeddings)
    drawn = np.sort(rng.permutation(n)[:sample])
    reduced = _principal_components(embeddings, drawn, seed)
    if len(drawn) <= 3 * 5 or not reduced.any():  # too few for neighbourhoods
        return quantise(reduced[:, :2])
    return quantise(_tsne(reduced, drawn, seed))


def _principal_components(
    embeddings: NDArray[np.floating], drawn: NDArray[np.int64], seed: int, chunk: int = 8192
) -> NDArray[np.float64]:
    """(n, at least 2 and at most 50): unit vectors along the principal axes of the drawn ones."""
    from sklearn.decomposition import PCA

    unit = _unit(embeddings[drawn])
    if not np.ptp(unit, axis=0).any():  # one image, or copies of it
        return np.zeros((len(embeddings), 2))
    components = min(DIMENSIONS, *unit.shape)
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(unit)
    parts = [pca.transform(_unit(embeddings[a : a + chunk])) for a in range(0, len(embeddings), chunk)]
    reduced = np.concatenate(parts).astype(np.float64)
    return np.pad(reduced, ((0, 0), (0, max(0, 2 - components))))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    from wscl_embed.evaluation.neighbours import normalise

    return normalise(vectors)


def _tsne(reduced: NDArray[np.float64], drawn: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """(n, 2) from (n, P): the drawn rows by t-SNE, the others among them."""
    openTSNE = import_extra("openTSNE", package="openTSNE", extra="report", needed_for="report.html")
    exaggerated, plain = STEPS
    arranged = openTSNE.TSNE(
        perplexity=min(PERPLEXITY, (len(drawn) - 1) // 3),
        early_exaggeration_iter=exaggerated,
        n_iter=plain,
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        theta=ACCURACY,
        n_jobs=1,  # its threads wait for each other in loops, three times the work on a busy machine
        random_state=seed,
    ).fit(reduced[drawn])
    plane = np.empty((len(reduced), 2))
    plane[drawn] = arranged
    others = np.setdiff1d(np.arange(len(reduced)), drawn, assume_unique=True)
    if len(others):
        placed = arranged.prepare_partial(reduced[others], initialization="median", k=1, perplexity=5)
        plane[others] = placed.optimize(
            n_iter=25, learning_rate=0.1, max_grad_norm=0.25, negative_gradient_method="fft", n_jobs=1
        )
    return plane


def quantise(plane: NDArray[np.floating]) -> NDArray[np.uint16]:
    """(n, 2) floats to whole numbers, 0 to 65535 along the longer side, in the middle of the shorter.

    >>> quantise(np.array([[0.0, 0.0], [2.0, 1.0]])).tolist()
    [[0, 16384], [65535, 49151]]
    """
    low, high = plane.min(axis=0), plane.max(axis=0)
    span = float((high - low).max()) or 1.0
    centred = (plane - (low + high) / 2) / span + 0.5
    whole: NDArray[np.uint16] = np.rint(centred * FULL_SCALE).astype(np.uint16)
    return whole
