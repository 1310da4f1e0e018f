"""Clustering hashtags: a million posts from file to `Clusters`, and what collapsing identical tag sets saves.

    python -m benchmarks.hashtags --tags harrison_tags/             # a million posts; 50,000 rows with and without
    python -m benchmarks.hashtags --tags harrison_tags/ --posts 100000

``--tags`` is a folder with HARRISON's `data_list.txt` and `tag_list.txt` (arXiv 1605.05054): the tags of 57,383
Instagram posts, and the keyword each was found by. That keyword and its singular are taken out of the tags; it is the
label.

The million posts are drawn from those: a post is drawn, and each of its tags with probability `REDRAWN` replaced by one
of its keyword's posts'. With that probability, 57,383 drawn posts have as many distinct tag sets as the real ones. They
go to a Parquet file, and ``wscl-embed cluster`` runs on it as a user would, in a process of its own bound to two cores.
That posts with the same tags are in one cluster, and that clusters tell something about the label, is asserted first.

Collapsing is measured with scikit-learn's KMeans from the same centres on all rows, and on the distinct rows with
weights; that both end in the same clusters is asserted first.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from wscl_adapters.hashtags import HashtagsAdapter
from wscl_embed.clusterers import collapse_rows, default_n_clusters
from wscl_embed.clusters import Clusters

REDRAWN = 0.2
COMMON = 3_000  # tag sets


@dataclass(frozen=True, eq=False)
class Posts:
    """The tags of n posts, and the keyword (n,) each was found by."""

    tags: list[list[str]]
    keywords: NDArray[np.str_]


def read_harrison(folder: Path) -> Posts:
    """The posts, without the keyword they were found by."""
    keywords = [line.split("/")[1] for line in (folder / "data_list.txt").read_text(encoding="utf-8").splitlines()]
    lines = (folder / "tag_list.txt").read_text(encoding="utf-8").splitlines()
    tags = [
        [tag for tag in line.split() if tag not in (keyword, keyword.removesuffix("s"))]
        for line, keyword in zip(lines, keywords, strict=True)
    ]
    return Posts(tags, np.array(keywords))


def draw(posts: Posts, n: int, redrawn: float = REDRAWN, seed: int = 0) -> tuple[pa.ListArray, NDArray[np.str_]]:
    """The tags of ``n`` posts drawn from ``posts`` as the module says, and their keywords."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(tags) for tags in posts.tags])
    vocabulary, flat = np.unique([tag for tags in posts.tags for tag in tags], return_inverse=True)
    _, keyword = np.unique(posts.keywords, return_inverse=True)
    of_tag = np.repeat(keyword, lengths)
    pool = flat[np.argsort(of_tag, kind="stable")]  # the tags of one keyword after another
    ends = np.cumsum(np.bincount(of_tag, minlength=keyword.max() + 1))
    begins = np.concatenate([[0], ends[:-1]])

    drawn = rng.integers(0, len(lengths), n)
    offsets = np.concatenate([[0], np.cumsum(lengths[drawn])])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths[drawn])
    codes = flat[within + np.repeat(np.cumsum(lengths)[drawn] - lengths[drawn], lengths[drawn])]
    theirs = np.repeat(keyword[drawn], lengths[drawn])
    others = pool[begins[theirs] + (rng.random(len(codes)) * (ends - begins)[theirs]).astype(int)]
    codes = np.where(rng.random(len(codes)) < redrawn, others, codes)
    values = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(vocabulary.tolist()))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.dictionary_decode()), posts.keywords[drawn]


def distinct_sets(tags: pa.ListArray) -> int:
    """How many different sets of tags there are."""
    return len({frozenset(one) for one in tags.to_pylist()})


def run_cluster(data: Path, adapter: str, output: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds and peak GiB of ``wscl-embed cluster``, on two cores."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    command = [sys.executable, "-m", "wscl_embed", "cluster", "--data", str(data), "--adapter", adapter]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2",
        "HF_DATASETS_CACHE": str(output.parent / f"cache-{output.stem}"),
    }
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--output", str(output)],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"wscl-embed cluster ended with status {status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def check_large(clusters: Clusters, tags: pa.ListArray, keywords: NDArray[np.str_]) -> float:
    """NMI with the keyword, of posts in a cluster; that posts with the same tags have one label is asserted."""
    assert clusters.ids == [str(row) for row in range(len(tags))]
    labels = clusters.labels
    seen: dict[frozenset[str], int] = {}
    for one, label in zip(tags.to_pylist(), labels.tolist(), strict=True):
        assert seen.setdefault(frozenset(one), label) == label, one
    found = labels >= 0
    score = float(normalized_mutual_info_score(keywords[found], labels[found]))
    assert score > 0.1
    return score


def large(posts: Posts, n: int) -> str:
    """Markdown: a row a mode, from file to `Clusters`."""
    tags, keywords = draw(posts, n)
    distinct = distinct_sets(tags)
    lines = [
        f"{n} posts, {len(tags.flatten()) / n:.1f} tags each, {distinct} distinct tag sets; Parquet to Parquet\n",
        "| adapter | wall | CPU | peak memory | clusters | posts in none | NMI with the keyword |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "posts.parquet"
        pq.write_table(pa.table({"tags": tags}), data)
        for adapter in ("hashtags", "hashtags:mode=overlap"):
            output = Path(folder) / f"{adapter.replace(':', '-')}.parquet"
            wall, cpu, peak = run_cluster(data, adapter, output)
            clusters = Clusters.load(output)
            score = check_large(clusters, tags, keywords)
            noise = (clusters.labels < 0).mean()
            lines.append(
                f"| `{adapter}` | {wall:.0f} s | {cpu:.0f} s | {peak:.2f} GiB | {clusters.n_clusters} | {noise:.1%} | "
                f"{score:.3f} |"
            )
    return "\n".join(lines)


def common_sets(posts: Posts, n: int, seed: int = 0) -> list[list[str]]:
    """``n`` posts drawn from those with one of the `COMMON` most common tag sets."""
    sets = [tuple(sorted(tags)) for tags in posts.tags if tags]
    common = {tags for tags, _ in Counter(sets).most_common(COMMON)}
    chosen = [list(tags) for tags in sets if tags in common]
    return [chosen[row] for row in np.random.default_rng(seed).integers(0, len(chosen), n)]


def real_posts(posts: Posts, n: int, seed: int = 0) -> list[list[str]]:
    """``n`` of the real posts that have tags."""
    tagged = [tags for tags in posts.tags if tags]
    return [tagged[row] for row in np.random.default_rng(seed).permutation(len(tagged))[:n]]


def collapsing(records: Sequence[list[str]], rounds: int) -> str:
    """A row of the table: KMeans from the same centres on every row, and on the distinct rows."""
    import datasets

    dataset = datasets.Dataset.from_dict({"id": [str(row) for row in range(len(records))], "tags": list(records)})
    features = np.asarray(HashtagsAdapter().features(dataset))
    features = features[features.any(axis=1)].astype(np.float64)  # in which equal distances stay equal
    k = default_n_clusters(len(features))
    centres = np.unique(features, axis=0)
    centres = centres[np.random.default_rng(0).choice(len(centres), min(k, len(centres)), replace=False)]
    model = KMeans(len(centres), init=centres, n_init=1)

    def every_row() -> NDArray[np.int32]:
        return np.asarray(model.fit_predict(features))

    def collapsed() -> NDArray[np.int32]:
        rows, inverse, counts = collapse_rows(features)
        return np.asarray(model.fit_predict(rows, sample_weight=counts))[inverse]

    agreement = adjusted_rand_score(every_row(), collapsed())
    assert agreement >= 0.99, agreement
    times: dict[str, list[float]] = {"every": [], "collapsed": []}
    for _ in range(rounds):
        for name, way in (("every", every_row), ("collapsed", collapsed)):
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    every, fewer = min(times["every"]), min(times["collapsed"])
    distinct = len(collapse_rows(features)[2])
    return (
        f"{len(features)} | {distinct} | {len(centres)} | {every:.2f} s | {fewer:.2f} s | {every / fewer:.1f} | "
        f"{agreement:.4f} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Clustering hashtags at scale.")
    parser.add_argument(
        "--tags", type=Path, required=True, help="folder with HARRISON's data_list.txt and tag_list.txt"
    )
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    posts = read_harrison(options.tags)
    drawn = distinct_sets(draw(posts, len(posts.tags))[0])
    real = len({frozenset(tags) for tags in posts.tags})
    print(
        f"2 cores of a {platform.machine()} CPU; Python {platform.python_version()}, "
        f"scikit-learn {sklearn.__version__}.\n"
        f"{real} distinct tag sets of {len(posts.tags)} real posts; {drawn} of as many drawn ones.\n"
    )
    print(large(posts, options.posts), flush=True)
    print("\n| posts | rows | distinct | clusters | every row | collapsed | ratio | ARI |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("| real | " + collapsing(real_posts(posts, options.rows), options.rounds), flush=True)
    common = collapsing(common_sets(posts, options.rows), options.rounds)
    print(f"| with one of the {COMMON} most common sets | {common}")


if __name__ == "__main__":
    main()
