"""The fine-tuner: Cl-InfoNCE on cached features (``head``) or through the image tower (``full``)."""

from wscl_embed.train.full import TowerEmbedder, train_full
from wscl_embed.train.head import train_head
from wscl_embed.train.objective import batch_loss
from wscl_embed.train.optimise import cosine_with_warmup
from wscl_embed.train.options import EpochLog, TrainOptions

__all__ = [
    "EpochLog",
    "TowerEmbedder",
    "TrainOptions",
    "batch_loss",
    "cosine_with_warmup",
    "train_full",
    "train_head",
]
