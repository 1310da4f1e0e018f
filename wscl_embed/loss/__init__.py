"""Cl-InfoNCE and its relatives over a membership matrix, at any batch size, on any number of processes.

`cl_infonce` is the whole of it; `dual_head_cl_infonce` adds an instance term on a head of its own. See
`wscl_embed.loss.objective` for the formulas and the papers.
"""

from wscl_embed.loss.objective import cl_infonce, dual_head_cl_infonce

__all__ = ["cl_infonce", "dual_head_cl_infonce"]
