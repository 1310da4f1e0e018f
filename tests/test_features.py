"""The cache of image features: what is read from it, and what is made anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from wscl_embed.features import cached_features, encode_images

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


@pytest.mark.parametrize("damage", ["older version", "cut off"])
def test_what_the_cache_cannot_give_is_made_anew(
    damage: str, few: datasets.Dataset, lite0: Encoder, tmp_path: Path
) -> None:
    images = few.select(range(6))
    first = encode_images(lite0, images, cache_dir=tmp_path, workers=0)
    (path,) = tmp_path.glob("*.safetensors")
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        with safe_open(path, framework="np") as handle:
            metadata = handle.metadata()
        tensors = load_file(path)
        del tensors["hashes"]
        save_file(tensors, path, metadata=metadata)
    assert cached_features(lite0, images, tmp_path) is None
    again = encode_images(lite0, images, cache_dir=tmp_path, workers=0)
    np.testing.assert_array_equal(again.values, first.values)
    np.testing.assert_array_equal(again.hashes, first.hashes)
    kept = cached_features(lite0, images, tmp_path)
    assert kept is not None
    np.testing.assert_array_equal(kept.values, first.values)
