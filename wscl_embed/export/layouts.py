"""The table of layouts, and `export`, which finds one and runs it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from wscl_embed.errors import InputError, nearest


@dataclass(frozen=True)
class Layout:
    """A layout: ``wscl_embed.export.MODULE`` has a function ``write(source, output, **options)``.

    ============ =====================================================================================
    ``module``   where it is
    ``takes``    ``embeddings``: write gets an `EmbeddingStore`; ``model``: an `Encoder`
    ``makes``    ``file`` or ``folder``: what ``output`` becomes
    ``help``     a line for people
    ============ =====================================================================================
    """

    module: str
    takes: str
    makes: str
    help: str

    def writer(self) -> Any:
        """The function ``write``."""
        return import_module(f"wscl_embed.export.{self.module}").write


LAYOUTS = {
    "ann-benchmarks": Layout("ann_benchmarks", "embeddings", "file", "HDF5: train, test, their exact neighbours"),
    "hloc": Layout("hloc", "embeddings", "file", "HDF5 with a global_descriptor an image, for visual localisation"),
    "clip-retrieval": Layout("clip_retrieval", "embeddings", "folder", "npy and Parquet shards; autofaiss reads them"),
    "parquet": Layout("parquet", "embeddings", "file", "Parquet for DuckDB, LanceDB, pandas, Polars"),
    "safetensors": Layout("tensors", "embeddings", "file", "safetensors with embeddings and ids"),
    "onnx": Layout("onnx", "model", "file", "the image tower for ONNX Runtime, checked against PyTorch"),
}


def export(source: str | Path, layout: str, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write an embedding file, or a model, in another tool's layout.

    Args:
        source: a run, or its embedding file or model folder.
        layout: a name in `LAYOUTS`, or ``name:option=value,...``.
        output: what to write.
        overwrite: replace it.

    Returns:
        ``output``.

    Raises:
        InputError: an unknown layout or option (names the nearest), no such source, or an output that is taken.
    """
    from wscl_embed.files import atomic_folder, atomic_path

    name, _, text = layout.partition(":")
    if name not in LAYOUTS:
        raise InputError(f"unknown layout {name!r}. {nearest(name, LAYOUTS)}")
    chosen, path = LAYOUTS[name], Path(output)
    write = chosen.writer()
    options = parse_options(name, write, text)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Give --overwrite to replace it.")
    if path.exists() and path.is_dir() != (chosen.makes == "folder"):
        raise InputError(f"{path} is not the {chosen.makes} that {name} writes, so --overwrite leaves it alone.")
    atomic = atomic_folder if chosen.makes == "folder" else atomic_path
    with open_source(Path(source), chosen.takes) as opened, atomic(path) as temporary:
        write(opened, temporary, **options)
    return path


def open_source(path: Path, takes: str) -> Any:
    """The `EmbeddingStore` or, in a context that does nothing, the `Encoder` of a run or a path."""
    from contextlib import nullcontext

    if takes == "embeddings":
        from wscl_embed.store import EmbeddingStore

        return EmbeddingStore(path)
    from wscl_embed.encoder_sources import load_encoder

    if path.is_file():
        raise InputError(f"{path}: a model is exported from a run or from its model folder, not from a file.")
    return nullcontext(load_encoder(str(path), device="cpu"))


def parse_options(name: str, write: Any, text: str) -> dict[str, Any]:
    """The keyword arguments that ``option=value,option=value`` asks for, converted to their types."""
    from pydantic import TypeAdapter, ValidationError

    known = option_fields(write)
    hints = get_type_hints(write, include_extras=True)
    options: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise InputError(f"layout {name}: {pair!r} is no option=value it knows. {nearest(key, known)}")
        try:
            options[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise InputError(f"layout {name}: {key}={value!r}: {error.errors()[0]['msg']}.") from error
    return options


def option_fields(write: Any) -> dict[str, Any]:
    """The options of a layout with their defaults: the keyword-only arguments of its ``write``."""
    parameters = inspect.signature(write).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
