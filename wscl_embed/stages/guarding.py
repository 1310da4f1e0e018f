"""What is written of the tuned weights: a mixture with the frozen ones, chosen on validation images where it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wscl_embed.captions import EncodeTexts
from wscl_embed.config import FitConfig
from wscl_embed.dataset import split_rows
from wscl_embed.distributed import on_first
from wscl_embed.errors import DivergedError
from wscl_embed.progress import console
from wscl_embed.stages.material import Material
from wscl_embed.stages.scoring import evaluation_set
from wscl_embed.stages.validation import validation_split

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wscl_embed.encoder import Encoder

MOST = 5000
"""Images that choose: in full mode each mixture has to encode them again."""


class Mixture(Protocol):
    """The encoder anywhere between frozen (alpha 0) and tuned (1)."""

    def outputs(self, alpha: float, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """(q, D) outputs for some of the material's images, not normalised."""

    def settle(self, alpha: float) -> NDArray[np.floating]:
        """Leave the encoder with the weights of ``alpha``; its outputs (n, D) for all images."""


class HeadMixture:
    """Mixing the weights is mixing the outputs, because only a linear map of them was tuned: exact, and free."""

    def __init__(self, encoder: Encoder, material: Material, weight: Tensor) -> None:
        self._encoder = encoder
        self._frozen = material.frozen
        self._weight = weight  # (D, D)

    def outputs(self, alpha: float, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        frozen = self._frozen[rows]
        return frozen if alpha == 0 else frozen @ self._map(alpha).numpy().T

    def settle(self, alpha: float) -> NDArray[np.floating]:
        self._encoder.fold(self._map(alpha))
        return self.outputs(alpha, np.arange(len(self._frozen)))

    def _map(self, alpha: float) -> Tensor:
        import torch

        return torch.lerp(torch.eye(len(self._weight)), self._weight, alpha)


class TowerMixture:
    """Each mixture of an image tower's weights has to encode the images again."""

    def __init__(self, encoder: Encoder, material: Material, frozen: dict[str, Tensor], workers: int | None) -> None:
        self._encoder = encoder
        self._material = material
        self._frozen = frozen
        self._tuned = weights_of(encoder)
        self._workers = workers

    def outputs(self, alpha: float, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        from wscl_embed.features import encode_images
        from wscl_embed.guard import mix

        self._tower.load_state_dict(mix(self._frozen, self._tuned, alpha))
        if alpha == 0:
            return self._material.frozen[rows]
        images = self._material.dataset.select(rows)
        return encode_images(self._encoder, images, workers=self._workers, what=f"encoding at {alpha:g}").values[:, 0]

    def settle(self, alpha: float) -> NDArray[np.floating]:
        return self.outputs(alpha, np.arange(len(self._material.dataset)))

    @property
    def _tower(self) -> torch.nn.Module:
        return self._encoder.model.visual  # type: ignore[return-value]


def weights_of(encoder: Encoder) -> dict[str, Tensor]:
    """A copy of the image tower's state, in main memory."""
    tower: Any = encoder.model.visual
    return {name: tensor.detach().cpu().clone() for name, tensor in tower.state_dict().items()}


def guard(
    mixture: Mixture, encode_texts: EncodeTexts, material: Material, config: FitConfig
) -> tuple[NDArray[np.floating], dict[str, Any]]:
    """Settle on a mixture: the one asked for, the one validation images choose, or the one for want of them.

    Returns:
        The outputs (n, D) of what is written, and ``guard`` for ``metrics.json``: ``alpha`` and ``chosen_on``; where it
        was chosen, the number of ``images`` and the ``sweep``, else whether it was ``given``.

    Raises:
        DivergedError: outputs that are not finite.
    """
    from wscl_embed.guard import describe

    split = None if config.alpha is not None else validation_split(material.dataset, config)
    if split is None:
        alpha = blind_alpha(config) if config.alpha is None else config.alpha
        report: dict[str, Any] = {"alpha": alpha, "chosen_on": None, "given": config.alpha is not None}
    else:
        report = sweep(mixture, encode_texts, material, split, config)
        if report["alpha"] == 0:
            console().print(f"{describe(report)} (--wise-ft)", style="bold yellow", markup=False, soft_wrap=True)
    return finite(mixture.settle(report["alpha"]), config), report


def finite(outputs: NDArray[np.floating], config: FitConfig) -> NDArray[np.floating]:
    """The outputs, if they are numbers: weights that are finite, but huge, may make others.

    Raises:
        DivergedError: they are not.
    """
    if np.isfinite(outputs).all():
        return outputs
    raise DivergedError(
        f"the embeddings of the tuned encoder are not finite; try a lower --learning-rate (now {config.learning_rate}) "
        f"or a higher --temperature (now {config.temperature})."
    )


def blind_alpha(config: FitConfig) -> float:
    """Where there is nothing to choose on. Random weights know nothing that could be forgotten."""
    from wscl_embed.guard import BLIND_ALPHA

    return 1.0 if config.pretrained == "none" else BLIND_ALPHA


def sweep(
    mixture: Mixture, encode_texts: EncodeTexts, material: Material, split: str, config: FitConfig
) -> dict[str, Any]:
    """Try every alpha on the images of ``split``, or on `MOST` of them."""
    from wscl_embed.guard import ALPHAS, candidate, choose

    rows = np.asarray(split_rows(material.dataset, split), dtype=np.int64)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(config.seed).choice(rows, MOST, replace=False))
    images = material.dataset.select(rows)
    labels, captions = config.label_column, config.caption_column
    scored = on_first(
        lambda: evaluation_set(encode_texts, images, np.arange(len(rows)), label_column=labels, caption_column=captions)
    )
    scores = {}
    for alpha in ALPHAS:
        outputs = finite(mixture.outputs(alpha, rows), config)
        scores[alpha] = on_first(lambda outputs=outputs: scored.score(outputs).per_query)  # type: ignore[misc]
    candidates = [candidate(alpha, scores[0.0], found) for alpha, found in scores.items()]
    return {
        "alpha": choose(candidates),
        "chosen_on": split,
        "images": len(rows),
        "sweep": [one.as_dict() for one in candidates],
    }
