"""What the compiler makes of the loss' Triton kernels on a GPU that need not be here.

    python -m benchmarks.kernels                          # compute capability 9.0 (H100, H200)
    python -m benchmarks.kernels --capability 80 --dims 128 768

For every configuration that would be tried for rows of a width and dtype: registers a thread, bytes a thread spills for
want of registers (0, or the kernel waits for memory), shared memory a block, and its instructions for tensor cores.
Nothing is timed: that takes the GPU, and `benchmarks.loss`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wscl_embed.loss import triton_kernels

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
KERNELS = {
    "forward": (triton_kernels.lse_kernel, triton_kernels.FORWARD_CONFIGS),
    "backward": (triton_kernels.force_kernel, triton_kernels.BACKWARD_CONFIGS),
}
ARGUMENTS = {"lse": "*fp32", "slope": "*fp32", "out": "*fp32", "scale": "*fp32"} | dict.fromkeys(
    ("first", "n_own", "n_rows", "n_views"), "i32"
)


class Resources(NamedTuple):
    """Of one kernel, as the assembler says."""

    registers: int  # a thread, of 255
    spilled: int  # bytes a thread
    shared: int  # bytes a block
    tensor_core_products: int  # instructions


def configs(kernel: str, dtype: torch.dtype, dim: int) -> list[triton.Config]:
    """Those that are tried for rows of ``dim`` dimensions."""
    return triton_kernels.suited(KERNELS[kernel][1], {"z": torch.empty(0, dtype=dtype)}, DIM=dim)


def resources(kernel: str, config: triton.Config, dtype: torch.dtype, dim: int, capability: int) -> Resources:
    """Compile one, with pointers and numbers of rows that are multiples of 16."""
    function = KERNELS[kernel][0].fn
    constants = {"DIM": dim, "CROSS_VIEW_ONLY": False, **config.kwargs}
    types = {"z": "*" + DTYPES[dtype], **ARGUMENTS}
    signature = {name: types.get(name, "constexpr") for name in function.arg_names}
    aligned: dict[Any, Any] = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(function.arg_names)
        if signature[name].startswith("*") or name in ("first", "n_own", "n_rows")
    }
    compiled = triton.compile(
        ASTSource(function, signature, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": config.num_warps, "num_stages": config.num_stages},
    )
    said = assemble(compiled.asm["ptx"])
    return Resources(
        registers=int(re.findall(r"Used (\d+) registers", said)[0]),
        spilled=int(re.findall(r"(\d+) bytes spill stores", said)[0]),
        shared=compiled.metadata.shared,
        tensor_core_products=len(re.findall(r"wgmma\.mma_async|mma\.sync|tcgen05\.mma", compiled.asm["ptx"])),
    )


def assemble(ptx: str) -> str:
    """What Triton's own assembler says of it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
        architecture = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0]
        command = [ptxas, "-v", f"--gpu-name={architecture}", source, "-o", Path(folder, "kernel.cubin")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="90 is compute capability 9.0")
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 512])
    options = parser.parse_args()
    print(f"compute capability {options.capability / 10}, Triton {triton.__version__}\n")
    print("| kernel | rows | block | warps, stages | registers | spilled | shared memory | tensor core products |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kernel in KERNELS:
        for dtype in (torch.bfloat16, torch.float32):
            for dim in options.dims:
                for config in configs(kernel, dtype, dim):
                    used = resources(kernel, config, dtype, dim, options.capability)
                    block = ", ".join(f"{name[-1]} {size}" for name, size in config.kwargs.items())
                    print(
                        f"| {kernel} | {DTYPES[dtype]}, {dim} | {block} | {config.num_warps}, {config.num_stages} | "
                        f"{used.registers} | {used.spilled} B | {used.shared / 1024:.0f} KiB | "
                        f"{used.tensor_core_products} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
