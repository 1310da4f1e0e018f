"""Datasets written for real into a temporary folder, for the tests of `load_dataset`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from wscl_embed.dataset import image_source, load_dataset
from wscl_embed.errors import InputError
from wscl_embed.images import decode_image


def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixture: Hugging Face's cache in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".hf-cache")


def secret(tmp_path: Path) -> Path:
    """An image outside the dataset folder."""
    path = tmp_path / "secret.png"
    path.write_bytes(png(99))
    return path


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(dataset: datasets.Dataset, row: int) -> int:
    """The shade of red that `png` was given, read back through the public path."""
    return decode_image(image_source(dataset[row]["image"])).getpixel((0, 0))[0]


def folder_of(root: Path, records: Iterable[Mapping[str, Any]], *, images: bool = True) -> Path:
    """An ImageFolder with metadata.jsonl, and an image for each file name."""
    root.mkdir(parents=True, exist_ok=True)
    records = list(records)
    (root / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    for number, record in enumerate(records):
        if images:
            path = root / record["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    return root


def tar_of(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refusal(path: str | Path, **options: str) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def sample(key: str, number: int, **record: Any) -> dict[str, bytes]:
    return {f"{key}.png": png(number), f"{key}.json": json.dumps(record).encode()}
