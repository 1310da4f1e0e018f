"""How good an embedding is: retrieval, nearest neighbours, a linear probe, text; and which of two is better.

=============== ==========================================================================================
``retrieval``   each image queries the others: Recall@k, mAP@R, R-precision, nDCG
``probes``      labels predicted from the training split's: nearest neighbours, a linear probe
``cross_modal`` captions query images, images query captions: Recall@k
``scores``      all of these at once, over the same images
``bootstrap``   paired bootstrap intervals of the change, and the verdict
``neighbours``  exact search in chunks, under all of them
=============== ==========================================================================================

Every metric is a vector with one value a query, so that any two embeddings of the same images can be compared query by
query.
"""

from wscl_embed.evaluation.bootstrap import VERDICTS, Change, compare, verdict
from wscl_embed.evaluation.retrieval import RETRIEVAL_METRICS, Retrieval, evaluate_retrieval

__all__ = ["RETRIEVAL_METRICS", "VERDICTS", "Change", "Retrieval", "compare", "evaluate_retrieval", "verdict"]
