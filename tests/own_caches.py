"""What each of two processes of tests/test_torchrun.py runs, as if it were on a machine of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import distributed

from tests.loss_worker import join
from wscl_embed.dataset import load_dataset
from wscl_embed.demo import EMOJI
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.features import encode_images


def encode(rank: int, folder: Path) -> None:
    """Features made, and read again where the first process alone has them, into ``folder``/RANK.npz."""
    join(rank, 2, folder, timeout=60)
    torch.manual_seed(0)
    encoder = load_encoder("timm/test_convnext", "none", image_size=32, device="cpu")
    dataset, cache_dir = load_dataset(EMOJI).select(range(5)), folder / f"machine-{rank}"
    made, read = (encode_images(encoder, dataset, cache_dir=cache_dir, workers=0) for _ in range(2))
    np.savez(folder / f"{rank}.npz", made=made.values, read=read.values, rows=read.rows)
    distributed.destroy_process_group()
