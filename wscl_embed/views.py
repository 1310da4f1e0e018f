"""The two views of an image that contrastive training compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

AUGMENTATION = "crop0.3-flip-jitter0.4x0.8-grey0.2"  # part of the key of cached views: change it with the transform


def augmentation(
    size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[Image.Image], Tensor]:
    """SimCLR's augmentations (Chen et al., 2020) without blur, milder crops: PIL RGB to (3, H, W) float32, normalised.

    Random resized crop of 30 to 100 % of the area, horizontal flip, colour jitter (p 0.8), greyscale (p 0.2).
    """
    import torch
    from torchvision.transforms import v2

    return v2.Compose(  # type: ignore[no-any-return]
        [
            v2.RandomResizedCrop(size, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
