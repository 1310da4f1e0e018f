"""A training step with `cl_infonce` against the same step without a loss, and with open_clip's `ClipLoss`.

    python -m benchmarks.step                   # EfficientNet-Lite0's architecture at 96 px, 64 images of two views
    python -m benchmarks.step --images 32 --size 64

All three run the same tower forward and backward and an AdamW step; the bare loop's "loss" is the mean of the
embeddings. They take turns in one process, and the median of the rounds counts. Before, `cl_infonce` without clusters,
cross-view only, is checked to be `ClipLoss` between the two views, in value and gradient.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from wscl_embed.encoder_sources import choose_device, load_encoder
from wscl_embed.loss import cl_infonce

TEMPERATURE = 0.1
Loss = Callable[[Tensor], Tensor]  # (B, 2, D) embeddings -> scalar


def bare(z: Tensor) -> Tensor:
    """No loss: a gradient for every embedding, at no cost."""
    return z.mean()


def make_ours(n_images: int) -> Loss:
    """Cl-InfoNCE with four images a cluster."""
    labels = torch.arange(n_images) // 4
    return lambda z: cl_infonce(normalize(z, dim=-1), labels, TEMPERATURE)


def clip(z: Tensor) -> Tensor:
    """open_clip's pattern: one view against the other."""
    first, second = normalize(z, dim=-1).unbind(1)
    loss: Tensor = open_clip.ClipLoss()(first, second, torch.tensor(1 / TEMPERATURE))
    return loss


def check_equal() -> None:
    """Cross-view Cl-InfoNCE without clusters is ClipLoss."""
    z = torch.randn(16, 2, 8, dtype=torch.float64, requires_grad=True)
    unit = normalize(z, dim=-1)
    ours = cl_infonce(unit, torch.full((16,), -1), TEMPERATURE, cross_view_only=True)
    torch.testing.assert_close(ours, clip(z))
    torch.testing.assert_close(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (ours, clip(z))))


def step(tower: nn.Module, images: Tensor, loss: Loss, optimiser: torch.optim.Optimizer) -> float:
    """Seconds of one training step."""
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        z = tower(images).float()
    loss(z.view(len(images) // 2, 2, -1)).backward()
    optimiser.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    check_equal()
    device = choose_device("auto")
    encoder = load_encoder("efficientnet-lite0", "none", image_size=options.size, device=str(device))
    tower = encoder.model.visual.train()  # type: ignore[union-attr]
    optimiser = torch.optim.AdamW(tower.parameters(), lr=1e-6, fused=device.type == "cuda")
    images = torch.rand(2 * options.images, 3, options.size, options.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    losses: dict[str, Loss] = {"no loss": bare, "cl_infonce": make_ours(options.images), "open_clip ClipLoss": clip}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for number in range(options.rounds + 1):
        for name, loss in losses.items():
            taken = step(tower, images, loss, optimiser)
            if number:  # the first round warms up
                seconds[name].append(taken)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores, {platform.machine()}"
    versions = f"{where}, torch {torch.__version__}"
    print(f"{options.images} x 2 images of {options.size} px, median of {options.rounds}; {versions}\n")
    print("| step with | time | speed / no loss |\n| --- | --- | --- |")
    bare_time = statistics.median(seconds["no loss"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {name} | {1000 * median:.0f} ms | {bare_time / median:.3f} |")


if __name__ == "__main__":
    main()
