"""The model card: ``README.md`` in ``model/``, as the Hugging Face Hub shows and indexes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.files import write_text
from wscl_embed.guard import describe
from wscl_embed.metric_names import ALL

if TYPE_CHECKING:
    from wscl_embed.clusters import Clusters
    from wscl_embed.encoder import Encoder

CARD_NAME = "README.md"


def write_card(
    folder: Path,
    encoder: Encoder,
    clusters: Clusters,
    metrics: Mapping[str, Any],
    *,
    adapters: Sequence[str],
    dataset_fingerprint: str,
) -> None:
    """Write the card of the model in ``folder``: what it was tuned from, on and by, and how it scored.

    Args:
        folder: ``model/`` of a run.
        encoder: the tuned one.
        clusters: it was tuned on.
        metrics: what ``metrics.json`` holds.
        adapters: their specs.
        dataset_fingerprint: of the images that decode.
    """
    facts = {
        "base model": f"`{encoder.name}`",
        "weak signals (adapters)": ", ".join(f"`{one}`" for one in adapters),
        "clusters": f"{clusters.n_clusters} over {len(clusters)} images",
        "clusters fingerprint": f"`{clusters_fingerprint(clusters)}`",
        "dataset fingerprint": f"`{dataset_fingerprint}`",
        "weights hash": f"`{encoder.weights_hash()}`",
        "embedding": f"{encoder.embed_dim} dimensions; compare by cosine",
        "preprocessing": f"`{json.dumps(encoder.preprocess_cfg)}`",
        "text tower": "that of the base model, unchanged" if encoder.has_text_tower else "none: images only",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    text = (
        f"---\n{header(encoder, metrics)}\n---\n\n# {folder.absolute().parent.name}\n\n"
        "An image encoder tuned with Cl-InfoNCE ([arXiv 2202.06670](https://arxiv.org/abs/2202.06670)) on clusters of "
        f"weak metadata, by wscl-embed.\n\n| | |\n| --- | --- |\n{rows}\n\n{scores(metrics)}\n{USE}"
    )
    write_text(folder / CARD_NAME, text)


USE = """## Use

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:PATH")  # from the Hub: hf-hub:ORG/NAME
embedding = model.eval().encode_image(preprocess(image)[None], normalize=True)
```
"""


def header(encoder: Encoder, metrics: Mapping[str, Any]) -> str:
    """The YAML the Hub indexes."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type="image-retrieval",
            dataset_name=f"own images, split {metrics['split']}",
            metric_type=name,
            metric_value=round(float(value), 4),
        )
        for name, value in metrics.get("after", {}).items()
    ]
    hub_name = encoder.name.removeprefix("hf-hub:")
    data = ModelCardData(
        library_name="open_clip",
        pipeline_tag="image-feature-extraction",
        tags=["wscl-embed", "image-retrieval", "contrastive-learning"],
        base_model=hub_name if hub_name != encoder.name else None,
        model_name="wscl-embed" if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def scores(metrics: Mapping[str, Any]) -> str:
    """The table before and after; a sentence where nothing was scored."""
    written = describe(metrics["guard"]) + "." if "guard" in metrics else ""
    if "before" not in metrics:
        return "Nothing was scored: neither labels nor texts were held out.\n"
    lines = []
    for name, before in metrics["before"].items():
        change = metrics["change"].get(name)
        interval = f"{change['low']:+.3f} .. {change['high']:+.3f}" if change else ""
        lines.append(f"| {ALL.get(name, name)} | {before:.3f} | {metrics['after'][name]:.3f} | {interval} |\n")
    by = f" by `{metrics['label_column']}`" if metrics.get("label_column") else ""
    return (
        f"{written[:1].upper()}{written[1:]}\n\n"
        f"Retrieval{by}, split `{metrics['split']}`. Verdict: {metrics['verdict']}.\n\n"
        f"| | before | after | change, 95 % interval |\n| --- | --- | --- | --- |\n{''.join(lines)}"
    )


def clusters_fingerprint(clusters: Clusters) -> str:
    """SHA-256 (hex) over the ids and the membership matrix."""
    digest = hashlib.sha256(json.dumps(clusters.ids).encode())
    matrix = clusters.membership.copy()
    matrix.sort_indices()
    for array, dtype in ((matrix.indptr, "<i8"), (matrix.indices, "<i8"), (matrix.data, "<f4")):
        digest.update(array.astype(dtype).tobytes())
    return digest.hexdigest()
