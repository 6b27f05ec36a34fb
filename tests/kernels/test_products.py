"""Products by either library are the same sums."""

import pytest
import torch

from stillhouse.kernels import products
from stillhouse.kernels.products import add_product_, product


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("library", ["given", "mkl"])
def test_products_of_strided_factors(library, monkeypatch):
    """Slices and transposes, as the fused kernel cuts them, against float64."""
    if library == "mkl":
        monkeypatch.setattr(products, "_LINEAR", None)
    left, right = normal(300, 70, seed=1), normal(90, 300, seed=2)
    for a, b in [(left[:, 10:40].T, right[3:80].T), (left.T, right.T), (left.T[:1], right[:1].T)]:
        exact = a.double() @ b.double()
        got = product(a, b)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-4)
        total = normal(100, len(a), seed=3).T[:, : b.shape[1]]
        expected = total.double() + exact
        add_product_(total, a, b)
        torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-4)


def test_a_half_precision_product_is_added_up_in_float32():
    a, b = normal(4, 64, seed=1, dtype=torch.bfloat16), normal(64, 8, seed=2, dtype=torch.bfloat16)
    total = torch.zeros(4, 8)
    for _ in range(300):
        add_product_(total, a, b)
    torch.testing.assert_close(total, 300 * (a @ b).float(), rtol=1e-5, atol=1e-3)


def test_nothing_to_multiply():
    assert product(torch.zeros(0, 5), torch.zeros(5, 3)).shape == (0, 3)
