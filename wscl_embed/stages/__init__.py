"""The stages `wscl_embed.pipeline` strings together, each a function of what the one before made."""

from wscl_embed.stages.clustering import assign_others, assign_signals, check_weights, combine, measure_parts, named
from wscl_embed.stages.guarding import guard
from wscl_embed.stages.inputs import (
    check_column,
    check_images,
    check_text_tower,
    open_dataset,
    open_encoder,
    open_split,
    read_labels,
)
from wscl_embed.stages.material import Material, cache_dir, cluster_signals, frozen_features, prepare, with_features
from wscl_embed.stages.reporting import write_report
from wscl_embed.stages.results import begin, store_attributes, write_card, write_results
from wscl_embed.stages.rounds import check_reclustering
from wscl_embed.stages.scoring import compare_embeddings, evaluation_set, held_out_rows, score
from wscl_embed.stages.tuning import Tuned, tune
from wscl_embed.stages.validation import with_validation

__all__ = [
    "Material",
    "Tuned",
    "assign_others",
    "assign_signals",
    "begin",
    "cache_dir",
    "check_column",
    "check_images",
    "check_reclustering",
    "check_text_tower",
    "check_weights",
    "cluster_signals",
    "combine",
    "compare_embeddings",
    "evaluation_set",
    "frozen_features",
    "guard",
    "held_out_rows",
    "measure_parts",
    "named",
    "open_dataset",
    "open_encoder",
    "open_split",
    "prepare",
    "read_labels",
    "score",
    "store_attributes",
    "tune",
    "with_features",
    "with_validation",
    "write_card",
    "write_report",
    "write_results",
]
