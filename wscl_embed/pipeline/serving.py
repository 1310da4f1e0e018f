"""`serve`: a run as a web page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.errors import InputError, import_extra
from wscl_embed.progress import say
from wscl_embed.run import Run

if TYPE_CHECKING:
    import datasets

    from wscl_embed.searching import Searcher
    from wscl_embed.serving.sides import Side
    from wscl_embed.serving.site import Site


def serve(
    source: str | Path,
    *,
    compare: str | Path | None = None,
    after_only: bool = False,
    data: str | Path | datasets.Dataset | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    port: int | None = None,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a run as a web page on 127.0.0.1, until the process is interrupted.

    The page searches by text, image or one of the images, the frozen encoder's embeddings beside the run's.

    Args:
        source: the directory `fit` wrote, or an embedding file.
        compare: another run, or embedding file, in the place of the frozen encoder.
        after_only: search the run's embeddings alone.
        data: the dataset. Default: the one the run's config names.
        model, pretrained: what an embedding file was made with.
        port: default the first free one from 8765 on; 0: any.
        ready: called with the address when it answers.

    Raises:
        InputError: wrong use or bad input, or a port that is taken.
    """
    for module in ("starlette", "uvicorn", "jinja2"):
        import_extra(module, package=module, extra="serve", needed_for="serve")
    from wscl_embed.searching import Searcher
    from wscl_embed.serving.app import make_app
    from wscl_embed.serving.server import Server, open_socket

    if compare is not None and after_only:
        raise InputError("give --compare or --after-only, not both.")
    with ExitStack() as opened:
        listening = opened.enter_context(open_socket(port))
        searcher = opened.enter_context(Searcher(source, model=model, pretrained=pretrained, data=data))
        site = open_site(searcher, opened, compare=compare, after_only=after_only)
        Server(make_app(site), listening, ready).serve_until_stopped()


def open_site(
    searcher: Searcher, opened: ExitStack, *, compare: str | Path | None = None, after_only: bool = False
) -> Site:
    """What `serve` serves of a run: for `wscl_embed.serving.app.make_app`.

    Args:
        searcher: the run's.
        opened: closes what is compared with.
        compare, after_only: as `serve`.

    Raises:
        InputError: as `serve`.
    """
    from wscl_embed.serving.sides import Side
    from wscl_embed.serving.site import Site

    _ = searcher.columns  # a dataset that is gone is said first
    before, notices = (None, []) if after_only else _before(searcher, compare, opened)
    name = searcher.source.absolute().name
    made_by = f"tuned {_encoder_name(searcher)}" if searcher.config else _encoder_name(searcher)
    after = Side("after", "After" if before and compare is None else name, made_by, searcher)
    sides = [after] if before is None else [before, after]
    for notice in [*notices, *(side.no_images for side in sides if side.no_images)]:
        say(notice, "yellow")
    clusters = Run(searcher.source).clusters if searcher.source.is_dir() else None
    return Site(name, sides, clusters, notices)


def _before(searcher: Searcher, compare: str | Path | None, opened: ExitStack) -> tuple[Side | None, list[str]]:
    """What to compare with; where that cannot be had, nothing, and why."""
    from wscl_embed.searching import Searcher
    from wscl_embed.serving.sides import Side
    from wscl_embed.stages.frozen import frozen_embeddings

    images = searcher.columns.dataset
    if compare is not None:
        other = opened.enter_context(Searcher(compare, data=images))
        return Side("before", other.source.absolute().name, _encoder_name(other), other), []
    if not searcher.config:
        return None, []
    try:
        path, encoder = frozen_embeddings(searcher)
        frozen = opened.enter_context(Searcher(path, model=encoder, data=images))
        return Side("before", "Before", f"frozen {_encoder_name(frozen)}", frozen), []
    except InputError as error:
        return None, [f"The embeddings before tuning cannot be shown: {error}"]


def _encoder_name(searcher: Searcher) -> str:
    """What made the embeddings, for people: of a folder or a file its name, not where it lies."""
    name = str(searcher.store.attributes.get("encoder", ""))
    return Path(name).name if Path(name).exists() else name
