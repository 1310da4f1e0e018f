"""What the compiler makes of the Triton kernels, for GPUs that are not here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
import torch

from wscl_embed.loss import passes

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block may have, by compute capability


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    older = "Triton before 3.4 imports kernels only where there is a GPU: they are NOT compiled here"
    pytest.importorskip("triton", minversion="3.4", reason=older)
    return import_module("benchmarks.kernels")


@pytest.mark.parametrize("kernel", ["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [128, *(pytest.param(dim, marks=pytest.mark.slow) for dim in (64, 512))])
def test_every_configuration_runs_well_on_hopper(
    kernels: ModuleType, kernel: str, dtype: torch.dtype, dim: int
) -> None:
    for config in kernels.configs(kernel, dtype, dim):
        used = kernels.resources(kernel, config, dtype, dim, capability=90)
        assert used.spilled == 0, config
        assert used.shared <= SHARED_MEMORY[90], config
        assert used.tensor_core_products > 0, config


@pytest.mark.parametrize("kernel", ["forward", "backward"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_one_configuration_fits_on_ampere(kernels: ModuleType, kernel: str, dtype: torch.dtype) -> None:
    used = kernels.resources(kernel, kernels.configs(kernel, dtype, 128)[0], dtype, 128, capability=80)
    assert used.shared <= SHARED_MEMORY[80]
    assert used.tensor_core_products > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 32, 100, 384, 768, 2048])
def test_there_are_configurations_for_rows_of_every_width(kernels: ModuleType, dtype: torch.dtype, dim: int) -> None:
    for kernel in kernels.KERNELS:
        assert kernels.configs(kernel, dtype, dim)


@pytest.mark.parametrize(
    ("cuda", "capability", "triton_version", "compiles"),
    [
        ("13.0", (9, 0), "3.8.0", True),
        ("12.6", (8, 0), "3.3.1", True),
        ("12.4", (9, 0), "3.2.0", False),
        ("12.6", (7, 5), "3.6.0", False),
        (None, (9, 4), "3.6.0", False),  # a GPU of AMD
    ],
)
def test_where_they_are_used(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, capability: tuple[int, int], triton_version: str, compiles: bool
) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(triton, "__version__", triton_version)
    assert passes._compiles_kernels.__wrapped__(torch.device("cuda")) is compiles
