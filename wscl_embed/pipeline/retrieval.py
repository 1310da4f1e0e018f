"""`search`, over runs."""

from __future__ import annotations

from pathlib import Path

from wscl_embed.errors import InputError


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
