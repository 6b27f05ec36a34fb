"""Products by either library are the same sums."""

import copy

import pytest
import torch

from stillhouse import products
from stillhouse.products import add_product_, faster_linears, product


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


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_weight_laid_out_for_many_products_gives_the_same_ones(rows):
    weight, bias, x = normal(700, 300, seed=1), normal(700, seed=2), normal(2, rows * 10, 300, seed=3)
    laid_out = products.for_many_products(weight)
    exact = x.double() @ weight.double().T + bias.double()
    got = products.linear(x, weight, bias, laid_out=laid_out)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-4)


def test_a_half_precision_product_is_added_up_in_float32():
    a, b = normal(4, 64, seed=1, dtype=torch.bfloat16), normal(64, 8, seed=2, dtype=torch.bfloat16)
    total = torch.zeros(4, 8)
    for _ in range(300):
        add_product_(total, a, b)
    torch.testing.assert_close(total, 300 * (a @ b).float(), rtol=1e-5, atol=1e-3)


def test_nothing_to_multiply():
    assert product(torch.zeros(0, 5), torch.zeros(5, 3)).shape == (0, 3)


@pytest.fixture
def layers(monkeypatch):
    monkeypatch.setattr(products, "WORTH", 0)
    monkeypatch.setattr(products, "SMALLEST", 0)
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.Tanh(), torch.nn.Linear(50, 7, bias=False))


@pytest.mark.parametrize("rows", [5, 211])
def test_layers_give_and_learn_the_same(layers, rows):
    """Values and gradients of inputs, weights and biases, against float64; 422 rows are filled up to 448."""
    x = normal(2, rows, 30).requires_grad_()
    with faster_linears(layers):
        assert all("forward" in layers[at].__dict__ for at in (0, 2))
        value = layers(x)
        got = torch.autograd.grad(value.square().sum(), (x, *layers.parameters()))
    assert not any("forward" in layer.__dict__ for layer in layers)
    wide, x64 = copy.deepcopy(layers).double(), x.detach().double().requires_grad_()
    exact = wide(x64)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)
    for one, other in zip(got, torch.autograd.grad(exact.square().sum(), (x64, *wide.parameters())), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_numbers_of_rows_come_again():
    sizes = [rows + products.until_recurring(rows) for rows in range(1, 3000)]
    assert sizes[:127] == list(range(1, 128))
    assert all(rows <= size < 1.13 * rows for rows, size in enumerate(sizes, 1))
    assert len(set(sizes[127:])) < 50


def test_frozen_layers_get_no_gradient(layers):
    layers[2].requires_grad_(False)
    x = normal(5, 30).requires_grad_()
    with faster_linears(layers):
        layers(x).sum().backward()
    assert layers[2].weight.grad is None
    assert (layers[0].weight.grad != 0).any()
    with faster_linears(layers), torch.inference_mode():
        torch.testing.assert_close(layers(x), layers(x.clone()))


def test_a_copy_has_its_own_weights(layers):
    """The reference of a training is copied from a student that is being trained."""
    with faster_linears(layers):
        twin = copy.deepcopy(layers)
        with torch.no_grad():
            layers[0].weight.zero_()
            assert not torch.equal(twin(normal(5, 30)), layers(normal(5, 30)))


def test_half_precision_and_autocast_go_their_own_way(layers):
    with faster_linears(layers.bfloat16()):
        assert layers(normal(5, 30, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with faster_linears(layers.float()), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layers(normal(5, 30)).dtype == torch.bfloat16
