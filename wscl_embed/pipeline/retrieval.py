"""`evaluate` and `search`, over embedding files and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray


def evaluate(
    embeddings: str | Path,
    data: str | Path | datasets.Dataset,
    label_column: str,
    *,
    split: str | None = "test",
    before: str | Path | None = None,
) -> dict[str, Any]:
    """Score an embedding file by image-to-image retrieval, alone or against another file over the same images.

    Args:
        embeddings: an HDF5 file, or a run.
        data: the images it was made from, for their labels.
        label_column: the column of labels.
        split: score this split only; None: all images.
        before: the embedding file to compare with.

    Returns:
        As in ``metrics.json``: ``split``, ``label_column``, ``n_queries``, ``after`` and, with ``before``, ``before``,
        ``change`` and ``verdict``.

    Raises:
        InputError: wrong use or bad input.
    """
    from wscl_embed import stages

    dataset = stages.open_split(data, split)
    stages.check_label_column(dataset, label_column)
    after_ids, after = _read_embeddings(Path(embeddings))
    before_ids, frozen = _read_embeddings(Path(before)) if before is not None else (after_ids, None)
    labels = dict(zip(dataset["id"], dataset[label_column], strict=True))
    rows = {image_id: row for row, image_id in enumerate(after_ids)}
    rows_before = {image_id: row for row, image_id in enumerate(before_ids)}
    ids = [image_id for image_id in after_ids if image_id in labels and image_id in rows_before]
    if not ids:
        raise InputError(f"{embeddings} holds none of the {len(dataset)} images of {data} to evaluate.")
    return {
        "split": split,
        "label_column": label_column,
        **stages.compare_embeddings(
            None if frozen is None else frozen[[rows_before[one] for one in ids]],
            after[[rows[one] for one in ids]],
            [labels[one] for one in ids],
        ),
    }


def search(run: str | Path, image: str | Path, *, k: int = 10) -> list[tuple[str, float]]:
    """The k images of a run most like one image, with the run's own encoder.

    Args:
        run: the directory `fit` wrote.
        image: an image file.

    Returns:
        (id, cosine similarity), most similar first.

    Raises:
        InputError: no such run, or an image that cannot be decoded.
    """
    import torch

    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.images import BadImageError, decode_image
    from wscl_embed.store import EmbeddingStore

    folder = Path(run)
    try:
        query = decode_image(Path(image))
    except BadImageError as error:
        raise InputError(f"{image}: {error.reason}.") from error
    with EmbeddingStore(folder / "embeddings.h5") as store:
        encoder = load_encoder(str(folder / "model"), device="cpu")
        if encoder.weights_hash() != store.attributes["weights_hash"]:
            raise InputError(f"{folder}: embeddings.h5 was not made by the encoder in model/; embed the images again.")
        with torch.inference_mode():
            vector = encoder.encode(encoder.preprocess(query)[None])[0].numpy()
        return store.search(vector, k)


def _read_embeddings(path: Path) -> tuple[list[str], NDArray[np.floating]]:
    from wscl_embed.store import EmbeddingStore

    with EmbeddingStore(path / "embeddings.h5" if path.is_dir() else path) as store:
        return store.ids, store.embeddings[:]
