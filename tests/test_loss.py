"""`cl_infonce` against loops from the papers, its gradient against finite differences, and its algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch.nn.functional import normalize

from tests.references import cl_infonce_reference, nt_xent_reference, supcon_out_reference
from wscl_embed import loss as loss_module
from wscl_embed.loss import cl_infonce


@pytest.fixture(params=[3, 1024], ids=["many tiles", "one tile"])
def _tile(request, monkeypatch):
    monkeypatch.setattr(loss_module, "TILE", request.param)


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def one_hot(labels: list[int]) -> np.ndarray:
    matrix = np.zeros((len(labels), max(labels, default=-1) + 2))
    for row, label in enumerate(labels):
        if label >= 0:
            matrix[row, label] = 1
    return matrix


def random_membership(n: int, k: int, density: float, seed: int) -> sparse.csr_array:
    return sparse.random_array((n, k), density=density, rng=np.random.default_rng(seed), format="csr")


MEMBERSHIPS = {
    "hard": sparse.csr_array(one_hot([0, 0, 1, 1, 1, 2, -1])),
    "noise": sparse.csr_array((7, 3)),
    "one cluster": sparse.csr_array(np.ones((7, 1))),
    "soft": sparse.csr_array(one_hot([0, 0, 1, 1, 1, 2, -1]) * np.linspace(0.1, 1, 7)[:, None]),
    "multi-label": random_membership(7, 4, 0.5, 1),
    "two adapters": sparse.csr_array(sparse.hstack([random_membership(7, 3, 0.4, 2), random_membership(7, 5, 0.4, 3)])),
}


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("n_views", [1, 2, 3])
@pytest.mark.parametrize("name", MEMBERSHIPS)
def test_equals_the_reference_in_value_and_gradient(name: str, n_views: int) -> None:
    membership = MEMBERSHIPS[name]
    z = unit(7, n_views, 5).requires_grad_()
    loss, expected = cl_infonce(z, membership, 0.2), cl_infonce_reference(z, membership.toarray(), 0.2)
    torch.testing.assert_close(loss, expected)
    if expected.requires_grad:
        torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (loss, expected)))
    else:
        assert torch.autograd.grad(loss, z)[0].abs().max() == 0


@pytest.mark.usefixtures("_tile")
@pytest.mark.parametrize("name", MEMBERSHIPS)
def test_gradcheck(name: str) -> None:
    z = unit(7, 2, 4).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, t: cl_infonce(z, MEMBERSHIPS[name], t), (z, temperature))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=9),
    n_views=st.integers(1, 3),
    temperature=st.floats(0.05, 2.0),
    seed=st.integers(0, 1000),
)
def test_any_hard_clusters_equal_the_reference(labels: list[int], n_views: int, temperature: float, seed: int) -> None:
    z = unit(len(labels), n_views, 4, seed=seed)
    expected = cl_infonce_reference(z, one_hot(labels), temperature)
    torch.testing.assert_close(cl_infonce(z, torch.tensor(labels), temperature), expected)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 8), k=st.integers(1, 6), density=st.floats(0, 1), seed=st.integers(0, 1000))
def test_any_soft_membership_equals_the_reference(n: int, k: int, density: float, seed: int) -> None:
    z, membership = unit(n, 2, 4, seed=seed), random_membership(n, k, density, seed)
    torch.testing.assert_close(cl_infonce(z, membership, 0.1), cl_infonce_reference(z, membership.toarray(), 0.1))


def test_labels_give_supcons_l_out() -> None:
    labels = [0, 0, 1, 1, 1, 2]
    z = unit(6, 2, 5)
    rows, row_labels = z.flatten(0, 1), [label for label in labels for _ in range(2)]
    torch.testing.assert_close(cl_infonce(z, torch.tensor(labels), 0.1), supcon_out_reference(rows, row_labels, 0.1))


def test_no_clusters_give_nt_xent() -> None:
    z = unit(6, 2, 5)
    torch.testing.assert_close(cl_infonce(z, torch.full((6,), -1), 0.1), nt_xent_reference(z[:, 0], z[:, 1], 0.1))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_every_form_of_membership_gives_the_same() -> None:
    z, labels = unit(7, 2, 5), [0, 0, 1, 1, 1, 2, -1]
    dense = torch.tensor(one_hot(labels))
    forms = [torch.tensor(labels), sparse.csr_array(one_hot(labels)), dense.to_sparse_csr()]
    values = [cl_infonce(z, form, 0.1).item() for form in forms]
    assert values == pytest.approx([values[0]] * 3, rel=1e-12)


def test_order_of_images_and_of_clusters_is_nothing() -> None:
    z, membership = unit(9, 2, 4), random_membership(9, 5, 0.4, 0)
    order, columns = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(5)
    shuffled = sparse.csr_array(membership[order][:, columns])
    torch.testing.assert_close(cl_infonce(z[order], shuffled, 0.1), cl_infonce(z, membership, 0.1))


@pytest.mark.parametrize("labels", [[-1] * 6, [0] * 6], ids=["all noise", "one cluster"])
def test_float32_stays_finite_at_a_low_temperature(labels: list[int]) -> None:
    z = unit(6, 2, 5, dtype=torch.float32).requires_grad_()
    loss = cl_infonce(z, torch.tensor(labels), 0.005)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_a_lone_row_has_no_loss_and_no_gradient() -> None:
    z = unit(1, 1, 5).requires_grad_()
    loss = cl_infonce(z, torch.tensor([-1]))
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert (z.grad == 0).all()


def test_nothing_quadratic_is_allocated() -> None:
    """2 x 8192 rows: one (rows, rows) float32 matrix would be 1 GiB. torch counts what the loss itself allocates."""
    z = unit(8192, 2, 16, dtype=torch.float32).requires_grad_()
    labels = torch.arange(8192) % 500
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        cl_infonce(z, labels).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 2 * loss_module.TILE**2 * 4


@pytest.mark.parametrize(
    ("z", "membership", "said"),
    [
        (unit(4, 5), torch.tensor([0, 0, 1, 1]), "B images, V views"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1]), r"\(4,\) cluster ids"),
        (unit(4, 2, 5), sparse.csr_array((3, 2)), "3 rows for 4 images"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(z: torch.Tensor, membership: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cl_infonce(z, membership)  # type: ignore[arg-type]
