"""Hashtags to clusters: the adapter against what one writes with scikit-learn, on real posts.

    python -m benchmarks.hashtag_peers --tags harrison_tags/

``--tags`` as for `benchmarks.hashtags`. All get the same lists of tags and the same number of clusters, and take turns
(`benchmarks.turns`); reading the file and a first run on `WARM_UP` posts, with its imports, are not counted. Quality:
the normalised mutual information with the keyword a post was found by, of the posts that our clusters have; the peers
put every post into a cluster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hashtags import Posts, read_harrison
from benchmarks.turns import machine, middle, ratio, turns
from wscl_embed.clusterers import default_n_clusters

Labels = NDArray[np.int64]
DIMS = 64
WARM_UP = 300


def some(folder: Path, n: int) -> Posts:
    """``n`` posts with tags, drawn at random."""
    posts = read_harrison(folder)
    tagged = [row for row, tags in enumerate(posts.tags) if tags]
    chosen = np.random.default_rng(0).permutation(tagged)[:n]
    return Posts([posts.tags[row] for row in chosen], posts.keywords[chosen])


def ours(folder: Path, n: int) -> Callable[[], Labels]:
    """The adapter, as `fit` and `cluster` call it."""
    import datasets
    import faiss  # noqa: F401

    from wscl_adapters.hashtags import HashtagsAdapter

    tags = some(folder, n).tags
    dataset = datasets.Dataset.from_dict({"id": [str(row) for row in range(len(tags))], "tags": tags})
    adapter = HashtagsAdapter(n_clusters=default_n_clusters(len(tags)))
    adapter.assign(dataset.select(range(WARM_UP)))
    return lambda: adapter.assign(dataset).labels


def peer(folder: Path, n: int, *, clusterer: str, reduced: bool) -> Callable[[], Labels]:
    """TF-IDF, truncated SVD and rows of unit length where ``reduced``, k-means."""
    from sklearn import cluster
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    tags = some(folder, n).tags

    def cluster_of(posts: list[list[str]]) -> Labels:
        kmeans: Any = getattr(cluster, clusterer)(default_n_clusters(len(posts)), n_init=1, random_state=0)
        steps = [TruncatedSVD(DIMS, random_state=0), Normalizer()] if reduced else []
        pipeline = make_pipeline(TfidfVectorizer(analyzer=list), *steps, kmeans)
        return np.asarray(pipeline.fit_predict(posts), dtype=np.int64)

    cluster_of(tags[:WARM_UP])
    return partial(cluster_of, tags)


WAYS: dict[str, Callable[[Path, int], Callable[[], Labels]]] = {
    "ours": ours,
    "scikit-learn: TF-IDF, SVD, KMeans": partial(peer, clusterer="KMeans", reduced=True),
    "scikit-learn: TF-IDF, SVD, MiniBatchKMeans": partial(peer, clusterer="MiniBatchKMeans", reduced=True),
    "scikit-learn: TF-IDF, MiniBatchKMeans": partial(peer, clusterer="MiniBatchKMeans", reduced=False),
}


def main() -> None:
    """Print the table."""
    from sklearn.metrics import normalized_mutual_info_score

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=Path, required=True)
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keywords = some(options.tags, options.posts).keywords
    outcomes = turns({name: partial(way, options.tags, options.posts) for name, way in WAYS.items()}, options.rounds)
    found = outcomes["ours"][0].result >= 0
    print(f"{options.posts:,} posts, {found.mean():.1%} in our clusters, median of {options.rounds}; {machine()}\n")
    print("| way | time | its time / ours, range | processor time | memory | clusters | NMI |\n" + "| --- " * 7 + "|")
    for name, made in outcomes.items():
        one = middle(made)
        score = normalized_mutual_info_score(keywords[found], one.result[found])
        costs = f"{one.seconds:.2f} s | {ratio(outcomes['ours'], made)} | {one.cpu_seconds:.2f} s"
        clusters = len(np.unique(one.result[found]))
        print(f"| {name} | {costs} | {one.megabytes:.0f} MB | {clusters} | {score:.3f} |")


if __name__ == "__main__":
    main()
