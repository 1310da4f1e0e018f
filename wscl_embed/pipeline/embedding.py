"""`embed`: images to an embedding file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.config import make_config
from wscl_embed.pipeline.places import check_file

if TYPE_CHECKING:
    import datasets


def embed(
    data: str | Path | datasets.Dataset,
    model: str,
    output: str | Path,
    *,
    pretrained: str | None = None,
    image_size: int | None = None,
    split: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_bad_share: float = 0.05,
    overwrite: bool = False,
) -> Path:
    """Embed images into an HDF5 file, batch by batch, in bounded memory; under ``torchrun`` each process its part.

    Args:
        data: what `wscl_embed.load_dataset` takes, or such a dataset.
        model: a run, its ``model/``, or anything else `wscl_embed.load_encoder` takes.
        output: the HDF5 file; images left out are named in ``<output>.quarantine.csv``.

    Returns:
        The path of the file.

    Raises:
        InputError: wrong use or bad input, or more bad images than ``max_bad_share``; no file is written then.
    """
    from wscl_embed import stages
    from wscl_embed.distributed import on_first, processes
    from wscl_embed.embedding import write_embeddings
    from wscl_embed.encoder_sources import load_encoder

    path = Path(output)
    chosen = {"image_size": image_size, "dtype": dtype, "workers": workers, "max_bad_share": max_bad_share}
    make_config({"data": "-", "adapter": ["-"], "output": "-", **chosen})  # refuses values outside their limits
    with processes():
        on_first(lambda: check_file(path, overwrite))
        dataset = stages.open_split(data, split)
        encoder = load_encoder(model, pretrained, image_size=image_size, device=device)
        quarantine = write_embeddings(
            encoder,
            dataset,
            path,
            dtype=dtype,
            attributes=stages.store_attributes(encoder, dataset, adapters=[]),
            batch_size=batch_size,
            workers=workers,
            max_bad_share=max_bad_share,
        )
        on_first(lambda: quarantine.write(path.with_name(f"{path.name}.quarantine.csv")))
    return path
