"""The Python API on real data: a third of the emoji that come with the package.

    pip install -e '.[demo]'
    python examples/python_api.py

About a minute on two CPU cores. Writes runs/python_api.
"""

from __future__ import annotations

from pathlib import Path

from sklearn.cluster import AgglomerativeClustering

from wscl_adapters.hashtags import HashtagsAdapter
from wscl_embed import EmbeddingStore, cluster, embed, fit, load_dataset
from wscl_embed.demo import EMOJI

RUN = Path("runs/python_api")


def main() -> None:
    # A Hugging Face dataset: id, image (not decoded), the signals, split. Your own folder loads the same way.
    emoji = load_dataset(EMOJI)
    third = emoji.select(range(0, len(emoji), 3))
    print(third)

    # Any object with scikit-learn's fit_predict clusters; "hashtags:n_clusters=60" would be k-means.
    adapter = HashtagsAdapter(column="tags", clusterer=AgglomerativeClustering(60))

    # Look at the clusters before training on them.
    clusters = cluster(third, adapter, split="train")
    for _, row in clusters.table.nlargest(3, "size").iterrows():
        print(row["size"], "emoji:", ", ".join(row["terms"]))

    # Cluster, fine-tune, embed, compare. The label scores the held-out emoji; training never sees it.
    result = fit(
        third, adapter, RUN, label_column="label", eval_split="val+test", image_size=64, cached_views=2, overwrite=True
    )
    for metric in ("recall@1", "map@r"):
        print(metric, f"{result.metrics['before'][metric]:.3f} -> {result.metrics['after'][metric]:.3f}")
    print(result.metrics["verdict"])

    # Embed other images with the tuned model, and look for the nearest of the first one.
    others = emoji.select(range(1, len(emoji), 12))
    path = embed(others, str(RUN), RUN / "others.h5", overwrite=True)
    names = dict(zip(others["id"], others["captions"], strict=True))
    with EmbeddingStore(path) as store:
        for emoji_id, similarity in store.search(store.embeddings[0], k=5):
            print(f"{similarity:.3f}", *names[emoji_id])


if __name__ == "__main__":
    main()
