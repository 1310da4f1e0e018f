"""`cl_infonce` on several Gloo processes against one process with the whole batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from tests import loss_worker
from tests.loss_worker import OPTIONS, SIZES
from wscl_embed.loss import cl_infonce


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[Any, Any]]:
    """What each of four ranks computed."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(loss_worker.compute, (folder,), nprocs=4)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(4)]


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", ["labels", "soft"])
def test_many_ranks_are_one(
    ranks: list[dict[Any, Any]], kind: str, name: str, dtype: torch.dtype, n_ranks: int
) -> None:
    rows, memberships = loss_worker.batch(sum(SIZES[:n_ranks]))
    expected, by_rows, by_temperature = loss_worker.loss_and_gradients(rows.to(dtype), memberships[kind], OPTIONS[name])
    results = [rank[n_ranks, dtype, kind, name] for rank in ranks[:n_ranks]]
    assert len({loss.item() for loss, *_ in results}) == 1
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype != torch.bfloat16 else {"rtol": 2e-2, "atol": 1e-3}
    torch.testing.assert_close(results[0][0], expected, rtol=1e-5, atol=0)
    # The gradient of a rank's rows is n_ranks times that of one process, for an average over ranks to undo.
    torch.testing.assert_close(torch.cat([of_rows for _, of_rows, _ in results]) / n_ranks, by_rows, **close)
    mean = torch.stack([of_temperature for *_, of_temperature in results]).double().mean()
    torch.testing.assert_close(mean, by_temperature.double(), **close)


def test_ddp_gives_the_gradient_of_one_process(ranks: list[dict[Any, Any]]) -> None:
    rows, memberships = loss_worker.batch(sum(SIZES))
    module = loss_worker.model()
    z, temperature = module(rows.float())
    cl_infonce(z, memberships["labels"], temperature).backward()
    for parameter, *averaged in zip(module.parameters(), *(rank["ddp"] for rank in ranks), strict=True):
        for gradient in averaged:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-6)


def test_a_nan_of_one_rank_is_a_nan_of_all(ranks: list[dict[Any, Any]]) -> None:
    assert all(rank["nan"].isnan() for rank in ranks)


def test_ranks_that_do_not_fit_are_all_refused(ranks: list[dict[Any, Any]]) -> None:
    assert all("agree in views and dimensions" in rank["refused"] for rank in ranks)


def test_micro_batches_of_ranks_with_more_and_fewer_rows(ranks: list[dict[Any, Any]]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 3)
    layer(torch.arange(24.0).view(6, 2, 2)).square().sum().backward()
    for rank in ranks:
        torch.testing.assert_close(rank["micro-batches"], [layer.weight.grad, layer.bias.grad])


def test_errors_of_the_first_rank_are_those_of_all(ranks: list[dict[Any, Any]]) -> None:
    missing = ("MissingExtraError", "an index needs the package faiss-cpu: pip install 'wscl-embed[faiss]'")
    assert [rank["errors"][0] for rank in ranks] == [missing] * 4
    # Its class cannot be made again in another process; its text can.
    text = ("WsclEmbedError", "TwoArgumentsError: no such shop 7")
    assert [rank["errors"][1] for rank in ranks] == [("TwoArgumentsError", "no such shop 7"), text, text, text]


def test_ranks_that_read_other_rows_are_all_refused(ranks: list[dict[Any, Any]]) -> None:
    for rank in ranks:
        assert rank["not alike"].startswith("the ids on process 3 are not those on the first")


@pytest.mark.parametrize("how", ["dies", "stops"])
def test_a_lost_rank_ends_the_others(tmp_path: Path, how: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=loss_worker.lose_a_rank, args=(rank, tmp_path, how)) for rank in range(3)]
    for process in processes:
        process.start()
    start = time.monotonic()
    try:
        for rank in (0, 2):
            processes[rank].join(timeout=120)  # to import torch on a busy machine, and the group's timeout of 4 s
            assert processes[rank].exitcode not in (None, 0), f"rank {rank} after {time.monotonic() - start:.0f} s"
    finally:
        for process in processes:
            process.kill()
            process.join()
