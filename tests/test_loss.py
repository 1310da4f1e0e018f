"""`cl_infonce` against loops from the papers, its gradient against finite differences, and its algebra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch.nn.functional import normalize

from tests.references import (
    cl_infonce_reference,
    nt_xent_reference,
    rince_reference,
    sincere_reference,
    supcon_out_reference,
)
from wscl_embed.loss import cl_infonce, dual_head_cl_infonce, pairs

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "negatives": {"denominator": "negatives"},
    "cross view": {"cross_view_only": True},
    "rince": {"q": 0.5, "lam": 0.1},
    "rince at 1": {"q": 1.0, "lam": 0.5},
    "all": {"denominator": "negatives", "cross_view_only": True, "q": 0.3, "lam": 0.7},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """These problems are small, and threads on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["no shift", "shift"])
def _pass(request, monkeypatch):
    """Many tiles, and exp with or without a shift. The tests without this fixture take one tile."""
    monkeypatch.setattr(pairs, "TILE", 3)
    if request.param == "shift":
        monkeypatch.setattr(pairs, "SAFE_LOGIT", 0.0)


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


def gradient(loss: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if not loss.requires_grad:  # a reference without any positive
        return tuple(torch.zeros_like(value) for value in inputs)
    return torch.autograd.grad(loss, inputs)


MEMBERSHIPS = {
    "hard": sparse.csr_array(one_hot([0, 0, 1, 1, 1, 2, -1])),
    "noise": sparse.csr_array((7, 3)),
    "one cluster": sparse.csr_array(np.ones((7, 1))),
    "soft": sparse.csr_array(one_hot([0, 0, 1, 1, 1, 2, -1]) * np.linspace(0.1, 1, 7)[:, None]),
    "multi-label": random_membership(7, 4, 0.5, 1),
    "two adapters": sparse.csr_array(sparse.hstack([random_membership(7, 3, 0.4, 2), random_membership(7, 5, 0.4, 3)])),
}


@pytest.mark.usefixtures("_pass")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n_views", [1, 2, 3])
@pytest.mark.parametrize("name", MEMBERSHIPS)
def test_equals_the_reference_in_value_and_gradient(name: str, n_views: int, options: dict[str, Any]) -> None:
    membership = MEMBERSHIPS[name]
    z = unit(7, n_views, 5).requires_grad_()
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    loss = cl_infonce(z, membership, temperature, **options)
    expected = cl_infonce_reference(z, membership.toarray(), temperature, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, z, temperature), gradient(expected, z, temperature))


@pytest.mark.usefixtures("_pass")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", ["hard", "multi-label"])
def test_gradcheck(name: str, options: dict[str, Any]) -> None:
    z = unit(7, 2, 3).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, t: cl_infonce(z, MEMBERSHIPS[name], t, **options), (z, temperature))


any_options = st.fixed_dictionaries(
    {
        "denominator": st.sampled_from(["all", "negatives"]),
        "cross_view_only": st.booleans(),
        "q": st.just(0.0) | st.floats(0.05, 1.0),
        "lam": st.floats(0.01, 1.0),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=9),
    n_views=st.integers(1, 3),
    temperature=st.floats(0.2, 2.0),
    options=any_options,
    seed=st.integers(0, 1000),
)
def test_any_hard_clusters_equal_the_reference(
    labels: list[int], n_views: int, temperature: float, options: dict[str, Any], seed: int
) -> None:
    z = unit(len(labels), n_views, 4, seed=seed).requires_grad_()
    loss = cl_infonce(z, torch.tensor(labels), temperature, **options)
    expected = cl_infonce_reference(z, one_hot(labels), temperature, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, z), gradient(expected, z))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 8),
    k=st.integers(1, 6),
    n_views=st.integers(1, 3),
    density=st.floats(0, 1),
    length=st.floats(0.1, 3),
    options=any_options,
    seed=st.integers(0, 1000),
)
def test_any_soft_membership_and_any_length_equal_the_reference(
    n: int, k: int, n_views: int, density: float, length: float, options: dict[str, Any], seed: int
) -> None:
    z, membership = (length * unit(n, n_views, 4, seed=seed)).requires_grad_(), random_membership(n, k, density, seed)
    loss = cl_infonce(z, membership, 0.5, **options)
    expected = cl_infonce_reference(z, membership.toarray(), 0.5, **options)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, z), gradient(expected, z))


def test_labels_give_supcons_l_out() -> None:
    labels = [0, 0, 1, 1, 1, 2]
    z = unit(6, 2, 5)
    rows, row_labels = z.flatten(0, 1), [label for label in labels for _ in range(2)]
    torch.testing.assert_close(cl_infonce(z, torch.tensor(labels), 0.1), supcon_out_reference(rows, row_labels, 0.1))


def test_labels_without_positives_in_the_denominator_give_sincere() -> None:
    labels = [0, 0, 1, 1, 1, 2]
    z = unit(6, 2, 5)
    rows, row_labels = z.flatten(0, 1), [label for label in labels for _ in range(2)]
    loss = cl_infonce(z, torch.tensor(labels), 0.1, denominator="negatives")
    torch.testing.assert_close(loss, sincere_reference(rows, row_labels, 0.1))


def test_no_clusters_give_nt_xent() -> None:
    z = unit(6, 2, 5)
    torch.testing.assert_close(cl_infonce(z, torch.full((6,), -1), 0.1), nt_xent_reference(z[:, 0], z[:, 1], 0.1))


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_no_clusters_and_q_give_rince(denominator: Any) -> None:
    z = unit(6, 2, 5)
    loss = cl_infonce(z, torch.full((6,), -1), 0.5, q=0.5, lam=0.025, denominator=denominator)
    torch.testing.assert_close(loss, rince_reference(z[:, 0], z[:, 1], 0.5, 0.5, 0.025))


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_rince_goes_to_infonce_as_q_goes_to_0(denominator: Any) -> None:
    z, membership = unit(7, 2, 5), MEMBERSHIPS["multi-label"]
    limit = cl_infonce(z, membership, 0.2, denominator=denominator)
    assert cl_infonce(z, membership, 0.2, denominator=denominator, q=1e-12).item() == pytest.approx(limit.item(), 1e-6)


def test_two_views_of_the_same_kind_are_no_pair_across_views() -> None:
    """What is left of B images' two views is CLIP's symmetric loss when there are no clusters."""
    z = unit(6, 2, 5)
    logits = z[:, 0] @ z[:, 1].T / 0.1
    diagonal = torch.arange(6)
    clip = (torch.nn.functional.cross_entropy(logits, diagonal), torch.nn.functional.cross_entropy(logits.T, diagonal))
    loss = cl_infonce(z, torch.full((6,), -1), 0.1, cross_view_only=True)
    torch.testing.assert_close(loss, sum(clip) / 2)


def test_dual_head_adds_an_instance_term() -> None:
    z, instance_z = unit(6, 2, 5).requires_grad_(), unit(6, 2, 3, seed=1).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    loss = dual_head_cl_infonce(z, instance_z, labels, 0.1, instance_weight=0.3)
    nt_xent = nt_xent_reference(instance_z[:, 0], instance_z[:, 1], 0.1)
    expected = cl_infonce_reference(z, one_hot(labels.tolist()), 0.1) + 0.3 * nt_xent
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, z, instance_z), gradient(expected, z, instance_z))
    with pytest.raises(ValueError, match="same images and views"):
        dual_head_cl_infonce(z, instance_z[:3], labels)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_form_of_membership_gives_the_same(options: dict[str, Any]) -> None:
    z, labels = unit(7, 2, 5), [0, 0, 1, 1, 1, 2, -1]
    dense = torch.tensor(one_hot(labels))
    indptr = np.arange(8) * 2  # every entry in two halves; the noise has two stored zeros
    halves = np.repeat([0.5] * 6 + [0.0], 2)
    twice = sparse.csr_array((halves, np.repeat([0, 0, 1, 1, 1, 2, 0], 2), indptr), shape=(7, 4))
    forms: list[Any] = [torch.tensor(labels), sparse.csr_array(one_hot(labels)), dense.to_sparse_csr()]
    forms += [
        twice,
        *(sparse.coo_array(one_hot(labels)).asformat(layout) for layout in ("coo", "csc")),
        np.array(labels),
    ]
    values = [cl_infonce(z, form, 0.3, **options).item() for form in forms]
    assert values == pytest.approx([values[0]] * len(forms), rel=1e-12)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_order_of_images_and_of_clusters_is_nothing(options: dict[str, Any]) -> None:
    z, membership = unit(9, 2, 4), random_membership(9, 5, 0.4, 0)
    order, columns = np.random.default_rng(0).permutation(9), np.random.default_rng(1).permutation(5)
    shuffled = sparse.csr_array(membership[order][:, columns])
    expected = cl_infonce(z, membership, 0.3, **options)
    torch.testing.assert_close(cl_infonce(z[order], shuffled, 0.3, **options), expected)


@pytest.mark.parametrize("denominator", ["all", "negatives"])
@pytest.mark.parametrize("temperature", [0.1, 0.02, 0.005, 0.0005])
@pytest.mark.parametrize("labels", [[-1] * 6, [0] * 6, [0, 0, 0, 1, 1, 1]], ids=["noise", "one cluster", "two"])
def test_float32_is_right_at_any_temperature(labels: list[int], temperature: float, denominator: Any) -> None:
    z = unit(6, 2, 5).requires_grad_()
    options = {"temperature": temperature, "denominator": denominator}
    expected = cl_infonce_reference(z, one_hot(labels), **options)
    single = z.detach().float().requires_grad_()
    loss = cl_infonce(single, torch.tensor(labels), **options)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradient(loss, single)[0] * temperature, gradient(expected, z)[0].float() * temperature, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("denominator", ["all", "negatives"])
def test_float32_is_right_for_rows_of_any_length(denominator: Any) -> None:
    z, labels = 8 * unit(6, 2, 5), [0, 0, 0, 1, 1, -1]  # logits up to 640
    expected = cl_infonce_reference(z, one_hot(labels), 0.1, denominator)
    loss = cl_infonce(z.float(), torch.tensor(labels), 0.1, denominator=denominator)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z = unit(20, 2, 16).to(dtype).requires_grad_()
    labels = torch.arange(20) % 4
    loss = cl_infonce(z, labels)
    exact = z.detach().double().requires_grad_()
    expected = cl_infonce(exact, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), 1e-5)
    torch.testing.assert_close(gradient(loss, z)[0], gradient(expected, exact)[0].to(dtype))


def test_autocast_changes_nothing() -> None:
    z, labels = unit(20, 2, 16, dtype=torch.float32).requires_grad_(), torch.arange(20) % 4
    for options in OPTIONS.values():
        expected = cl_infonce(z, labels, 0.3, **options)
        with torch.autocast("cpu", torch.bfloat16):
            loss = cl_infonce(z, labels, 0.3, **options)
            torch.testing.assert_close(gradient(loss, z), gradient(expected, z))
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_lone_row_has_no_loss_and_no_gradient(options: dict[str, Any]) -> None:
    z = unit(1, 1, 5).requires_grad_()
    loss = cl_infonce(z, torch.tensor([-1]), **options)
    assert loss.item() == 0
    assert (gradient(loss, z)[0] == 0).all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_makes_the_loss_none(bad: float, options: dict[str, Any]) -> None:
    z = unit(6, 2, 5)
    z[2, 1, 0] = bad
    assert not cl_infonce(z, torch.tensor([0, 0, 1, 1, 2, -1]), **options).isfinite()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_nothing_quadratic_is_allocated(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 2048 rows: one (rows, rows) float32 matrix would be 64 MiB. torch counts what the loss itself allocates."""
    monkeypatch.setattr(pairs, "TILE", 512)
    z = unit(2048, 2, 16, dtype=torch.float32).requires_grad_()
    labels = torch.arange(2048) % 500
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        cl_infonce(z, labels, **options).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 2 * pairs.TILE**2 * 4


def test_a_csc_matrix_is_not_read_as_if_it_were_csr() -> None:
    """As many images as clusters, so that the lengths of its arrays do not tell."""
    z, membership = unit(4, 2, 5), sparse.csr_array(np.eye(4)[[2, 2, 0, 3]])
    assert membership.shape == (4, 4)
    assert cl_infonce(z, sparse.csc_array(membership), 0.3).item() == cl_infonce(z, membership, 0.3).item()


def test_a_learned_temperature_may_have_a_dimension() -> None:
    z, labels = unit(4, 2, 5), torch.tensor([0, 0, 1, 1])
    scalar, vector = torch.tensor(0.3, requires_grad=True), torch.tensor([0.3], requires_grad=True)
    (expected,) = gradient(cl_infonce(z, labels, scalar), scalar)
    torch.testing.assert_close(gradient(cl_infonce(z, labels, vector), vector)[0], expected[None])


@pytest.mark.parametrize(
    ("z", "membership", "options", "said"),
    [
        (unit(4, 5), torch.tensor([0, 0, 1, 1]), {}, "B images, V views"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1]), {}, r"\(4,\) integer cluster ids"),
        (unit(4, 2, 5), sparse.csr_array((3, 2)), {}, "3 rows for 4 images"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"denominator": "some"}, '"all" or "negatives"'),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"q": 2}, "q must be within 0 and 1"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"lam": 0}, "lam must be above 0"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"temperature": 0.0}, "temperature must be one number above 0"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"temperature": float("nan")}, "temperature must be"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"temperature": torch.tensor(-0.1)}, "temperature must be"),
        (unit(4, 2, 5), torch.tensor([0, 0, 1, 1]), {"temperature": torch.tensor([0.1, 0.2])}, "one number"),
        (unit(4, 2, 5), torch.tensor([0.2, 0.7, 1, 1]), {}, "integer cluster ids"),
        (unit(4, 2, 5), sparse.csr_array(-np.eye(4)), {}, "finite and not negative"),
        (unit(4, 2, 5), sparse.csr_array(np.eye(4) * np.nan), {}, "finite and not negative"),
        (unit(4, 2, 5), torch.eye(4).to_sparse_coo(), {}, "to_sparse_csr"),
    ],
)
def test_what_does_not_fit_is_refused(z: torch.Tensor, membership: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cl_infonce(z, membership, **options)
