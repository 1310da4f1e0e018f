"""Out of memory: half as many images through the encoder at once, where that gives the same gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from wscl_embed.distributed import world_size
from wscl_embed.errors import MemoryLimitError
from wscl_embed.progress import say
from wscl_embed.train.objective import backward
from wscl_embed.train.options import TrainOptions


class FittingSteps:
    """`wscl_embed.train.objective.backward` that halves the micro-batch for good when memory runs out."""

    def __init__(self, embedder: nn.Module, options: TrainOptions) -> None:
        self.embedder, self.options = embedder, options

    def __call__(self, inputs: Tensor, loss_of: Callable[[Tensor], Tensor], seed: int) -> Tensor:
        """Give the parameters the gradient of a batch; its loss.

        Args:
            inputs: (b, V, ...), this process's part of the batch.
            loss_of: (b, V, P) outputs for them -> scalar.
            seed: of what is drawn within the step, such as dropout: the same however often it is tried.

        Raises:
            MemoryLimitError: there is no smaller micro-batch, or it would change the gradient.
        """
        while True:
            torch.manual_seed(seed)
            self.embedder.zero_grad(set_to_none=True)
            try:
                return backward(self.embedder, inputs, loss_of, self.options.micro_batch_size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(len(inputs))  # not within the except block: the error holds on to the step's tensors

    def _halve(self, n: int) -> None:
        tried = min(self.options.micro_batch_size or n, n)
        if reason := self._cannot_halve(tried):
            raise MemoryLimitError(f"out of memory with {tried} images through the encoder at once; {reason}")
        say(
            f"out of memory with {tried} images through the encoder at once: {tried // 2} from here on "
            f"(--micro-batch-size {tried // 2})",
            "yellow",
        )
        self.options = replace(self.options, micro_batch_size=tried // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _cannot_halve(self, tried: int) -> str:
        if tried < 2:
            return "lower --batch-size or --image-size."
        if world_size() > 1:  # the others are in the middle of the step, and wait
            return f"give --micro-batch-size {tried // 2} and --resume."
        norms = (module for module in self.embedder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
        if any(norm.training for norm in norms):
            return (
                "lower --batch-size. Its batch norms are tuned, and would be normalised by each micro-batch: to accept "
                f"that, give --micro-batch-size {tried // 2}; to keep them as they are, --unlocked-groups."
            )
        return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a tensor found no place, on the GPU or, where PyTorch has no error of its own for it, on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
