"""`cl_infonce` against what people use instead: time and memory of one forward and backward.

    python -m benchmarks.loss                   # 4096 pairs of views, 128 dimensions, 2 threads
    python -m benchmarks.loss --images 1024 --threads 1

The peers take turns in one process, and the median of the rounds counts. Before, every peer's value and gradient are
checked to be ours. Memory is what the loss itself allocates at its peak, above its inputs: on a CPU the running sum of
the allocations and releases that torch's profiler records, on a GPU `torch.cuda.max_memory_allocated`. With a GPU,
32,768 and 262,144 pairs of 512 dimensions are measured as well, in float32 and bfloat16; the peers' own arithmetic in
bfloat16 is coarse, so there only our value is checked, to be that of the same rows in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_metric_learning
import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor
from torch.nn.functional import normalize

from wscl_embed.loss import cl_infonce

TEMPERATURE = 0.1
Loss = Callable[[Tensor, Tensor], Tensor]  # (B, V, P) rows and (B,) labels -> scalar


def ours(z: Tensor, labels: Tensor) -> Tensor:
    """This project's loss."""
    return cl_infonce(z, labels, TEMPERATURE)


def matrix_supcon(z: Tensor, labels: Tensor) -> Tensor:
    """L_out of Khosla et al. 2020, equation 2, with its matrices of all rows by all rows written out."""
    rows, row_labels = z.flatten(0, 1), labels.repeat_interleave(z.shape[1])
    logits = rows @ rows.T / TEMPERATURE
    logits = logits - logits.detach().amax(1, keepdim=True)
    others = 1 - torch.eye(len(rows), dtype=z.dtype, device=z.device)
    positives = (row_labels[:, None] == row_labels[None]).to(z.dtype) * others
    log_prob = logits - torch.log((torch.exp(logits) * others).sum(1, keepdim=True))
    return -((positives * log_prob).sum(1) / positives.sum(1)).mean()


def metric_learning_supcon(z: Tensor, labels: Tensor) -> Tensor:
    """SupConLoss of pytorch-metric-learning."""
    loss: Tensor = SupConLoss(temperature=TEMPERATURE)(z.flatten(0, 1), labels.repeat_interleave(z.shape[1]))
    return loss


PEERS: dict[str, Loss] = {
    "cl_infonce": ours,
    "SupCon as matrices": matrix_supcon,
    "pytorch-metric-learning SupConLoss": metric_learning_supcon,
}


def batch(n_images: int, dim: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(B, 2, P) rows that cluster somewhat, and (B,) labels of 8 images each."""
    torch.manual_seed(0)
    labels = torch.randperm(n_images) % max(1, n_images // 8)
    centres = torch.randn(n_images, dim)
    z = normalize(centres[labels][:, None] + 2 * torch.randn(n_images, 2, dim), dim=-1)
    return z.to(device, dtype), labels.to(device)


def step(loss: Loss, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    z = z.detach().requires_grad_()
    value = loss(z, labels)
    return value.detach(), torch.autograd.grad(value, z)[0]


def check(peers: dict[str, Loss], z: Tensor, labels: Tensor) -> None:
    """Every peer's value and gradient are ours, but for how the length of a row matters: some normalise once more."""

    def along_the_sphere(gradient: Tensor) -> Tensor:
        return gradient - (gradient * z).sum(-1, keepdim=True) * z

    value, gradient = step(ours, z, labels)
    if z.dtype == torch.bfloat16:
        torch.testing.assert_close(value, step(ours, z.float(), labels)[0], rtol=1e-3, atol=0)
        return
    for name, peer in peers.items():
        other_value, other_gradient = step(peer, z, labels)
        difference = along_the_sphere(other_gradient - gradient).norm() / along_the_sphere(gradient).norm()
        if abs(other_value / value - 1) > 1e-4 or difference > 1e-3:
            raise AssertionError(f"{name} is {other_value}, not {value}, or its gradient is {difference:.1e} off.")


def fits(loss: Loss, z: Tensor, labels: Tensor) -> bool:
    """Whether a step fits into memory; it warms up, too."""
    try:
        step(loss, z, labels)
    except torch.OutOfMemoryError:
        return False
    return True


def seconds(peers: dict[str, Loss], z: Tensor, labels: Tensor, rounds: int) -> dict[str, float]:
    """The median time of a step, the peers taking turns."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            start = time.perf_counter()
            step(peer, z, labels)
            if z.is_cuda:
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(loss: Loss, z: Tensor, labels: Tensor) -> int:
    """The most that a step holds at any time, above its inputs."""
    if z.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, z, labels)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(loss, z, labels)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    held, peak = 0, 0
    for event in sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def table(peers: dict[str, Loss], z: Tensor, labels: Tensor, rounds: int) -> str:
    """Markdown: a row a peer, with its ratio to ours."""
    small_enough = {name: peer for name, peer in peers.items() if fits(peer, z, labels)}
    check(small_enough, z, labels)
    times = seconds(small_enough, z, labels, rounds)
    peaks = {name: peak_bytes(peer, z, labels) for name, peer in small_enough.items()}
    lines = ["| loss | time | time / ours | peak memory | memory / ours |", "| --- | --- | --- | --- | --- |"]
    for name in peers:
        if name not in small_enough:
            lines.append(f"| {name} | out of memory | | | |")
            continue
        time_ratio, peak_ratio = times[name] / times["cl_infonce"], peaks[name] / peaks["cl_infonce"]
        lines.append(
            f"| {name} | {times[name] * 1000:.0f} ms | {time_ratio:.1f} | "
            f"{peaks[name] / 2**20:.0f} MiB | {peak_ratio:.1f} |"
        )
    return "\n".join(lines)


def on_gpu(rounds: int) -> None:
    """The sizes of training on many GPUs, on one."""
    for n_images in (32_768, 262_144):
        for dtype in (torch.float32, torch.bfloat16):
            print(f"\n{n_images} x 2 rows, 512 dimensions, {dtype}, {torch.cuda.get_device_name()}\n")
            z, labels = batch(n_images, 512, "cuda", dtype)
            # The matrices of 524,288 rows would take a terabyte each.
            print(table(PEERS if n_images == 32_768 else {"cl_infonce": ours}, z, labels, rounds))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Time and memory of cl_infonce and its peers.")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.images} x 2 rows, {options.dim} dimensions, float32, {options.threads} threads of a "
        f"{platform.machine()} CPU; Python {platform.python_version()}, torch {torch.__version__}, "
        f"pytorch-metric-learning {pytorch_metric_learning.__version__}; median of {options.rounds}\n"
    )
    print(table(PEERS, *batch(options.images, options.dim), options.rounds))
    if torch.cuda.is_available():
        on_gpu(options.rounds)


if __name__ == "__main__":
    main()
