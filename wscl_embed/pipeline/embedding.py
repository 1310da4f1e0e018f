"""`embed`: images to an embedding file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.config import make_config
from wscl_embed.errors import InputError
from wscl_embed.pipeline.places import check_file
from wscl_embed.progress import say

if TYPE_CHECKING:
    import datasets

    from wscl_embed.quarantine import Quarantine


def embed(
    data: str | Path | datasets.Dataset,
    model: str,
    output: str | Path,
    *,
    pretrained: str | None = None,
    image_size: int | None = None,
    split: str | None = None,
    caption_column: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_bad_share: float = 0.05,
    overwrite: bool = False,
    resume: bool = False,
    update: bool = False,
) -> Path:
    """Embed images into an HDF5 file, batch by batch, in bounded memory; under ``torchrun`` each process its part.

    A job that was killed leaves no file ``output``, but the rows it had embedded in the folder ``.NAME.partial`` beside
    it, where ``resume`` finds them. ``update`` leaves the file as it is until the new one is whole.

    Args:
        data: what `wscl_embed.load_dataset` takes, or a `datasets.Dataset` with a column of images.
        model: a run, its ``model/``, or anything else `wscl_embed.load_encoder` takes.
        output: the HDF5 file; images left out are named in ``<output>.quarantine.csv``.
        caption_column: the column of captions to embed by the model's text tower, beside the images. Default: that of
            the file with ``update``, else none.
        dtype: float32 or float16. Default: that of the file with ``update``, else float32.
        overwrite: replace ``output``, and forget what an interrupted job left.
        resume: continue an interrupted job.
        update: embed only images whose id ``output`` does not have, or whose file changed since. Images that ``output``
            has and ``data`` has not, or not any more in a file that can be read, stay in it as they were.

    Returns:
        The path of the file.

    Raises:
        InputError: wrong use or bad input, more bad images than ``max_bad_share``, or another process that writes the
            same file; no file is written then.

    Example::

        path = wscl_embed.embed("more-photos/", "runs/photos", "more.h5")
        with wscl_embed.EmbeddingStore(path) as store:
            print(len(store), store.embeddings.shape)
    """
    from wscl_embed import stages
    from wscl_embed.distributed import on_first, processes
    from wscl_embed.embedding import write_embeddings
    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.store.partial import Partial

    path = Path(output)
    chosen = {"image_size": image_size, "workers": workers, "max_bad_share": max_bad_share, "dtype": dtype or "float32"}
    make_config({"data": "-", "adapter": ["-"], "output": "-", **chosen})  # refuses values outside their limits
    if overwrite and (resume or update):
        raise InputError("give --overwrite, or --resume or --update, not both.")
    with processes(), ExitStack() as locked:
        on_first(lambda: check_output(path, overwrite, resume, update))
        partial = Partial(path)
        on_first(lambda: locked.enter_context(partial.lock()))
        if caption_column is None and update:
            caption_column = on_first(lambda: stored(path)[1])
        dataset = _open(data, split, caption_column)
        encoder = load_encoder(model, pretrained, image_size=image_size, device=device)
        stages.check_text_tower(encoder, caption_column)
        if overwrite:
            on_first(partial.clear)
        quarantine = write_embeddings(
            encoder,
            dataset,
            partial,
            stages.store_attributes(encoder, dataset, [], caption_column),
            dtype=dtype or on_first(lambda: stored(path)[0] if update else "float32"),
            resume=resume,
            update=update,
            batch_size=batch_size,
            workers=workers,
            max_bad_share=max_bad_share,
        )
        if quarantine is not None:
            on_first(lambda: _list_bad(quarantine, path, update))
        on_first(partial.remove)
    return path


def _open(data: str | Path | datasets.Dataset, split: str | None, caption_column: str | None) -> datasets.Dataset:
    """The rows to embed, with images and the captions that were asked for."""
    from wscl_embed import stages

    dataset = stages.open_split(data, split)
    stages.check_images(dataset)
    stages.check_column(dataset, "caption_column", caption_column)
    return dataset


def _list_bad(quarantine: Quarantine, output: Path, update: bool) -> None:
    """Name the images left out in ``<output>.quarantine.csv``, and say that there are some."""
    path = output.with_name(f"{output.name}.quarantine.csv")
    quarantine.write(path)
    if len(quarantine):
        stays = "; what the file had of them stays" if update else ""
        say(f"bad images left out: {len(quarantine)}; {path} names them{stays}", "yellow")


def check_output(path: Path, overwrite: bool, resume: bool, update: bool) -> None:
    """Whether the embedding file ``path`` may be written; changes nothing."""
    if update and not path.exists():
        raise InputError(f"{path}: there is no such file to --update; leave that out to write it.")
    check_file(path, overwrite or resume or update)


def stored(path: Path) -> tuple[str, str | None]:
    """The dtype of the embeddings in a file, and the column of the captions in it."""
    from wscl_embed.store import EmbeddingStore

    with EmbeddingStore(path) as store:
        return str(store.embeddings.dtype.name), store.attributes.get("caption_column")
