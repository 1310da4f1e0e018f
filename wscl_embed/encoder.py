"""`Encoder`: an open_clip model whose image tower we tune, with its preprocessing; saved as open_clip saves its own."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wscl_embed.errors import InputError, MissingExtraError
from wscl_embed.files import atomic_path, write_text

if TYPE_CHECKING:
    from PIL import Image

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
IMAGE_ONLY_TEXT_CFG = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""open_clip models always have a text tower. An image-only encoder gets the smallest one, whose context of one token
refuses any tokenised text instead of embedding it into noise."""


@dataclass(eq=False)
class Encoder:
    """An open_clip model, the configuration that rebuilds it, and where it runs.

    ============== ===================================================================================
    ``model``      the open_clip model; its ``visual`` is the image tower
    ``model_cfg``  open_clip's ``model_cfg``: what `save` writes and open_clip builds the model from
    ``name``       what the user asked for, for people and for the HDF5 file
    ``device``     where the model is
    ``source``     what open_clip calls it, to find its tokenizer
    ============== ===================================================================================
    """

    model: nn.Module
    model_cfg: dict[str, Any]
    name: str
    device: torch.device
    source: str

    @property
    def embed_dim(self) -> int:
        """D, the dimensions of an embedding."""
        return int(self.model_cfg["embed_dim"])

    @property
    def has_text_tower(self) -> bool:
        """False for an image-only encoder."""
        text_cfg = self.model_cfg["text_cfg"]
        return "hf_model_name" in text_cfg or text_cfg.get("vocab_size") != IMAGE_ONLY_TEXT_CFG["vocab_size"]

    @property
    def preprocess_cfg(self) -> dict[str, Any]:
        """open_clip's ``preprocess_cfg``: size, mean, std, interpolation, resize mode."""
        return dict(self.model.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """open_clip's own evaluation transform: PIL RGB to (3, H, W) float32, normalised."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self.preprocess_cfg), is_train=False)  # type: ignore[no-any-return]

    def augmentation(self) -> Callable[[Image.Image], Tensor]:
        """The random transform of a training view, at this encoder's size and normalisation."""
        from wscl_embed.views import augmentation

        cfg = self.preprocess_cfg
        size = cfg["size"] if isinstance(cfg["size"], (tuple, list)) else (cfg["size"], cfg["size"])
        return augmentation(tuple(size), tuple(cfg["mean"]), tuple(cfg["std"]))

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 on CUDA devices that have it; elsewhere nothing."""
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) preprocessed images, on any device, to (n, D) float32 embeddings, not normalised."""
        pixels = images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return self.model.encode_image(pixels).float()  # type: ignore[operator, no-any-return]

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """open_clip's tokenizer: m texts to (m, context length) int64.

        Raises:
            InputError: an image-only encoder, or a tokenizer that cannot be loaded; for one of Hugging Face's without
                Transformers a `MissingExtraError`.
        """
        import open_clip

        if not self.has_text_tower:
            raise InputError(f"the model {self.name} has no text tower: captions cannot be embedded.")
        try:
            return open_clip.get_tokenizer(self.source)  # type: ignore[no-any-return]
        except ModuleNotFoundError as error:
            raise MissingExtraError(str(error.name), "captions", f"the tokenizer of {self.name}") from error
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"the tokenizer of {self.name} cannot be loaded: {reason}") from error

    def encode_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> NDArray[np.float32]:
        """(m, D) float32 embeddings of m texts by the text tower, not normalised; open_clip cuts what is too long.

        Raises:
            InputError: an image-only encoder.
        """
        self.model.eval()
        parts = [np.empty((0, self.embed_dim), dtype=np.float32)]
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            with torch.inference_mode(), self.autocast():
                parts.append(self.model.encode_text(tokens).float().cpu().numpy())  # type: ignore[operator]
        return np.concatenate(parts)

    def fold(self, weight: Tensor) -> None:
        """Compose the (D, D) linear map ``weight`` into the tower's last projection: `encode` then gives its images.

        Raises:
            InputError: a tower that does not end in a linear projection.
        """
        projection = last_projection(self.model.visual)  # type: ignore[arg-type]
        with torch.no_grad():
            if isinstance(projection, nn.Parameter):  # (width, D), applied from the right
                projection.copy_(projection @ weight.T.to(projection))
                return
            projection.weight.copy_(weight.to(projection.weight) @ projection.weight)
            if projection.bias is not None:
                projection.bias.copy_(weight.to(projection.bias) @ projection.bias)

    def lock(self, unlocked_groups: int) -> None:
        """Freeze the image tower but for its last ``unlocked_groups`` layer groups, as open_clip's locking has it.

        The last projection always stays trainable.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Importing from timm.models.helpers", FutureWarning)
            self.model.lock_image_tower(unlocked_groups=unlocked_groups)  # type: ignore[operator]
        projection = last_projection(self.model.visual)  # type: ignore[arg-type]
        projection.requires_grad_(True)

    def train(self) -> None:
        """Training mode, except for batch norms that are locked: they keep their statistics.

        open_clip's own way, ``freeze_bn_stats``, swaps the modules for others that its strict loading then refuses.
        """
        self.model.train()
        for module in self.model.modules():
            locked = not any(parameter.requires_grad for parameter in module.parameters())
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and locked:
                module.eval()

    def weights_hash(self) -> str:
        """sha256 over the image tower's weights and the preprocessing: equal hashes give equal embeddings."""
        return _digest(self.preprocess_cfg, self.model.visual.state_dict())  # type: ignore[union-attr]

    def text_weights_hash(self) -> str:
        """sha256 over all weights but the image tower's, and their configuration: equal hashes embed texts equally.

        Raises:
            InputError: an image-only encoder.
        """
        if not self.has_text_tower:
            raise InputError(f"the model {self.name} has no text tower: captions cannot be embedded.")
        config = {key: value for key, value in self.model_cfg.items() if key != "vision_cfg"}
        image_or_scale = ("visual.", "logit_")  # logits are scaled, embeddings are not
        weights = {key: one for key, one in self.model.state_dict().items() if not key.startswith(image_or_scale)}
        return _digest(config, weights)

    def save(self, directory: Path) -> None:
        """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``.

        ``open_clip.create_model_from_pretrained("local-dir:DIRECTORY")`` loads them, without this package.
        """
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        config = {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in self.model.state_dict().items()}
        with atomic_path(directory / WEIGHTS_NAME) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        write_text(directory / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
        if "hf_tokenizer_name" in self.model_cfg["text_cfg"]:  # open_clip looks for it beside the weights
            self.tokenizer.save_pretrained(str(directory))  # type: ignore[attr-defined]


def _digest(config: dict[str, Any], weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for key, tensor in sorted(weights.items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def last_projection(visual: nn.Module) -> nn.Linear | nn.Parameter:
    """The linear map an open_clip image tower ends in.

    Raises:
        InputError: the tower has none.
    """
    candidates = (
        getattr(visual, "proj", None),  # VisionTransformer: a parameter
        getattr(getattr(visual, "head", None), "proj", None),  # TimmModel
        getattr(getattr(visual, "attnpool", None), "c_proj", None),  # ModifiedResNet
    )
    for candidate in candidates:
        if isinstance(candidate, (nn.Linear, nn.Parameter)):
            return candidate
    raise InputError(
        f"the image tower {type(visual).__name__} does not end in a linear projection; "
        "for a timm tower set timm_proj to 'linear' in its open_clip config."
    )
