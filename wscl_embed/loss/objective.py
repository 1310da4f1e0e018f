r"""Cl-InfoNCE over a membership matrix, in O(B d) memory.

Tsai et al., "Learning Weakly-supervised Contrastive Representations", ICLR 2022 (arXiv 2202.06670). With hard clusters
it equals SupCon's L_out (Khosla et al., 2020, arXiv 2004.11362), whose expectation over one drawn positive is the
paper's Cl-InfoNCE; with no clusters it is NT-Xent (Chen et al., 2020, arXiv 2002.05709).

With w_ij the weight of the pair of rows i, j, W_i its sum over j, x_ij = <z_i, z_j> / t and phi the cost of a pair::

    L = mean over i with W_i > 0 of   (1 / W_i) sum_j w_ij phi_ij

    phi_ij = log D_ij - x_ij                        q = 0
    phi_ij = ((lam D_ij)^q - e^(q x_ij)) / q        q > 0     RINCE, Chuang et al., CVPR 2022 (arXiv 2201.04309)

    D_ij = sum_{a != i} e^(x_ia)                   denominator="all"
    D_ij = e^(x_ij) + sum_{a: w_ia = 0} e^(x_ia)   denominator="negatives"  SINCERE, Feeney & Hughes (arXiv 2309.14277)

The weights are never formed: with M the membership matrix, sum_j w_ij z_j = m_i (M^T Z) up to the row's own image. What
is not linear in the pairs is computed in tiles that are not stored, and computed again in the backward, whose gradient
is in closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from wscl_embed.loss.pairs import Pairs
from wscl_embed.loss.passes import pull, row_logsumexp, row_terms
from wscl_embed.loss.ranks import Shard, gather_entries
from wscl_embed.loss.terms import Denominator, PairTerm
from wscl_embed.loss.weights import Weights, entries_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy import sparse


def cl_infonce(
    z: Tensor,
    membership: Tensor | sparse.sparray | sparse.spmatrix | NDArray[np.integer],
    temperature: float | Tensor = 0.1,
    *,
    denominator: Denominator = "all",
    cross_view_only: bool = False,
    q: float = 0.0,
    lam: float = 1.0,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The Cl-InfoNCE loss of one batch, which may lie on several processes.

    Two rows of the same image attract with weight 1; rows of images b and c with weight <m_b, m_c>. An image without
    memberships (noise) attracts its own other views only.

    Args:
        z: (B, V, P) float, L2-normalised along P: V views of each of B images. Rows of other lengths are not
            normalised: their inner products are the similarities.
        membership: (B,) LongTensor or integer array of cluster ids with -1 for noise; or (B, K) non-negative
            memberships as a torch sparse CSR tensor or a SciPy sparse array.
        temperature: float, or a tensor of one number that may require a gradient; > 0.
        denominator: ``"all"`` other rows; or ``"negatives"``, where the positives of a row leave each other's
            denominator: that of a pair holds the pair itself and the rows with weight 0. A row of any weight above 0,
            however small, is a positive.
        cross_view_only: only rows of different views are a pair. Rows of the anchor's view leave both the positives
            (and W_i) and the denominator, be they of the anchor's cluster or not. With one view nothing is left.
        q: robustness to wrong positives (RINCE), 0 to 1. 0 is InfoNCE, its limit with ``lam`` = 1; the higher,
            the less a positive far from its anchor, which may be a wrong one, weighs against one near it. Takes
            e^(q / temperature), which must stay within the dtype.
        lam: RINCE's weight of the denominator, in (0, 1]; the lower, the more the positives count. 1 at q = 1 leaves no
            pull on them. Without effect on the value and the gradient at q = 0.
        group: the processes whose images are one batch; by default all, where torch.distributed is initialised. Each
            calls with images of its own, of any number.

    On several processes every one of them returns the loss of the whole batch, to the last bit the same. The gradient
    of a process's own rows is the whole batch's times the number of processes, so that after the averaging of
    DistributedDataParallel the parameters have the gradient of one process with the whole batch. Only the rows, their
    memberships and three numbers a row are sent, all in the forward. A process that is lost is an error on the others:
    at once, or after the group's timeout.

    Returns:
        scalar of the dtype of ``z``, float32 if that is a half precision; 0 (with a zero gradient) when no row has a
        positive.

    Raises:
        ValueError: shapes that do not fit, also between processes, memberships that are negative or not finite, or an
            option outside its range.

    >>> z = torch.nn.functional.normalize(torch.tensor([[[1., 0.], [1., .1]], [[0., 1.], [.1, 1.]]]), dim=-1)
    >>> round(cl_infonce(z, torch.tensor([-1, -1])).item(), 4)
    0.0003
    >>> cl_infonce(z, torch.tensor([0, 0])) > cl_infonce(z, torch.tensor([0, 1]))
    tensor(True)
    >>> cl_infonce(z, torch.tensor([0, 0]), denominator="negatives")  # one cluster has no negatives
    tensor(0.)
    """
    if z.ndim != 3:
        raise ValueError(f"z must be (B, V, P): B images, V views, P dimensions; got {tuple(z.shape)}.")
    scale = _scale_of(temperature, z.dtype if z.dtype == torch.float64 else torch.float32)
    term = _pair_term(denominator, q, lam)
    entries, shard = gather_entries(entries_of(membership, len(z)), z, group)
    weights = Weights(entries, shard.n_images, z.shape[1], cross_view_only, z.device)
    loss: Tensor = _MeanRowLoss.apply(z, scale, weights, term, shard)
    return loss


def dual_head_cl_infonce(
    z: Tensor,
    instance_z: Tensor,
    membership: Tensor | sparse.sparray | sparse.spmatrix | NDArray[np.integer],
    temperature: float | Tensor = 0.1,
    *,
    instance_weight: float = 1.0,
    **options: Any,
) -> Tensor:
    """Cl-InfoNCE on one projection head plus InfoNCE (every image its own cluster) on a second head.

    L = cl_infonce(z, membership) + instance_weight * cl_infonce(instance_z, no clusters); the two heads may differ in
    width. The cluster head is free to draw a cluster together while the instance head keeps its images apart.

    Args:
        z: (B, V, P) output of the cluster head, L2-normalised along P.
        instance_z: (B, V, Q) output of the instance head for the same images and views, L2-normalised along Q.
        membership: as for `cl_infonce`.
        temperature: of both terms.
        instance_weight: of the instance term.
        **options: of `cl_infonce`, for both terms.

    Raises:
        ValueError: as `cl_infonce`, or heads of different images or views.

    >>> z = torch.nn.functional.normalize(torch.randn(4, 2, 3), dim=-1)
    >>> none, labels = torch.full((4,), -1), torch.tensor([0, 0, 1, 1])
    >>> both = dual_head_cl_infonce(z, z, labels, instance_weight=0.5)
    >>> torch.testing.assert_close(both, cl_infonce(z, labels) + 0.5 * cl_infonce(z, none))
    """
    if instance_z.shape[:2] != z.shape[:2]:
        raise ValueError(
            f"both heads must see the same images and views; got {(*z.shape,)} and {(*instance_z.shape,)}."
        )
    no_clusters = torch.full((len(instance_z),), -1, device=instance_z.device)
    instance = cl_infonce(instance_z, no_clusters, temperature, **options)
    return cl_infonce(z, membership, temperature, **options) + instance_weight * instance


def _scale_of(temperature: float | Tensor, dtype: torch.dtype) -> Tensor:
    """() 1 / temperature. A plain number stays on the CPU; one on a GPU is not looked at, which would wait for it."""
    scale = 1 / torch.as_tensor(temperature, dtype=dtype)
    if scale.numel() != 1 or (scale.device.type == "cpu" and not 0 < scale.item() < math.inf):
        raise ValueError(f"temperature must be one number above 0; got {temperature}.")
    return scale.reshape(())


def _pair_term(denominator: Denominator, q: float, lam: float) -> PairTerm:
    if denominator not in ("all", "negatives"):
        raise ValueError(f'denominator must be "all" or "negatives"; got {denominator!r}.')
    if not 0 <= q <= 1:
        raise ValueError(f"q must be within 0 and 1; got {q}.")
    if not 0 < lam <= 1:
        raise ValueError(f"lam must be above 0 and at most 1; got {lam}.")
    return PairTerm(denominator, q, lam)


class _MeanRowLoss(torch.autograd.Function):
    """(B, V, P) rows and a scalar scale -> scalar loss."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, weights: Weights, term: PairTerm, shard: Shard) -> Tensor:
        every_z = shard.gather(z)
        with torch.autocast(z.device.type, enabled=False):
            pairs = Pairs(every_z, shard.own, scale, weights, term)
            lse = row_logsumexp(pairs)
            value, slope = row_terms(pairs, lse)
        # All that the backward needs of the other ranks' rows is sent here, and nothing is sent there.
        lse, value, slope = shard.gather(torch.stack([lse, value, slope], -1)).unbind(-1)
        anchor = (weights.total > 0)[:, None]
        n_anchors = (anchor.sum() * z.shape[1]).clamp_min(1)
        ctx.weights, ctx.term, ctx.shard, ctx.n_anchors = weights, term, shard, n_anchors
        ctx.save_for_backward(every_z, scale, lse, torch.where(anchor, slope, 0.0))
        return torch.where(anchor, value, 0.0).sum() / n_anchors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        every_z, scale, lse, slope = ctx.saved_tensors
        with torch.autocast(every_z.device.type, enabled=False):
            pairs = Pairs(every_z, ctx.shard.own, scale, ctx.weights, ctx.term)
            force = pull(pairs, lse, slope).mul_(grad * len(ctx.shard.counts) / ctx.n_anchors)
        # Every logit is scale <z_i, z_j>: its slope in the scale is half of what it is along both of its rows.
        grad_scale = None
        if ctx.needs_input_grad[1]:
            grad_scale = torch.stack([(z[pairs.own] * force[..., dims]).sum() for dims, z in pairs.slabs()]).sum() / 2
        return force.mul_(scale).to(every_z.dtype), grad_scale, None, None, None
