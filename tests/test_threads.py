"""Several items at a time: their order, what is taken ahead, errors, and images encoded to the same values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from wscl_embed.features import encode_images
from wscl_embed.image_rows import ImageRows
from wscl_embed.threads import at_a_time, in_threads

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_and_each_thread_works_alone() -> None:
    seen = list(in_threads(lambda item: (item, torch.get_num_threads()), range(20)))
    assert seen == [(item, 1) for item in range(20)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_no_more_is_taken_than_is_under_way() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_threads(lambda item: item, items())
    assert [next(results), next(results)] == [0, 1]
    assert len(taken) == 2 + at_a_time()
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 2 + at_a_time()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_ends_it_and_gives_the_threads_back() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // (3 - item), range(20)))
    assert torch.get_num_threads() == 2


def test_images_and_views_are_encoded_to_the_same_on_several_threads(lite0: Encoder, few: datasets.Dataset) -> None:
    spoilt = few.map(
        lambda row, number: {"image": {"bytes": b"no image", "path": None} if number == 5 else row["image"]},
        with_indices=True,
        features=few.features,
        keep_in_memory=True,
    )
    assert torch.get_num_threads() == 1
    alone = [encode_images(lite0, spoilt, n_views=views, batch_size=16) for views in (None, 2)]
    torch.set_num_threads(2)
    try:
        several = [encode_images(lite0, spoilt, n_views=views, batch_size=16) for views in (None, 2)]
    finally:
        torch.set_num_threads(1)
    for one, other in zip(alone, several, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-3, atol=2e-3)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.hashes, other.hashes)
        assert [row.id for row in one.bad] == [row.id for row in other.bad] == [few["id"][5]]


def test_views_are_drawn_from_the_row_alone_and_leave_the_generator_as_it_was(
    lite0: Encoder, few: datasets.Dataset
) -> None:
    rows = ImageRows(few, [lambda image: torch.rand(3)], None, seed=7)
    state = torch.get_rng_state()
    _, drawn, _ = rows[3]
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([7, 0, 3]).generate_state(1)[0]))
        assert torch.equal(drawn, torch.rand(3)[None])  # type: ignore[arg-type]
    together = rows.__getitems__([1, 3])
    assert torch.equal(together[1][1], drawn)  # type: ignore[arg-type]
