"""Fused chunks equal the naive form: loss, hidden-state and head gradients (P02, P12-P14, P27, P29, P31)."""

import math

import pytest
import torch

from stillhouse.errors import RecipeError
from stillhouse.kernels import fused, positions
from stillhouse.kernels.beliefs import Dense, Mapped, Sampled, TopK
from stillhouse.kernels.fused import Blended, Projected, target_logprobs, token_logprobs
from stillhouse.objectives.divergence import forward_kl, generalised_jensen_shannon, reverse_kl, universal_logit
from stillhouse.objectives.supervised import cross_entropy
from stillhouse.testing.formulas import EVERY

F64 = torch.float64
N, H, J, V = 23, 5, 7, 19


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Several chunks, several parts of the head and several blocks of each, none of them even."""
    monkeypatch.setattr(fused, "CPU_CHUNK_ROWS", 6)
    monkeypatch.setattr(fused, "CPU_HEAD_ROWS", 8)
    monkeypatch.setattr(positions, "CPU_ELEMENTS", 4 * V)


def made(seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    hidden, head = torch.randn(N, H, generator=g, dtype=F64), torch.randn(V, H, generator=g, dtype=F64)
    teacher_hidden, teacher_head = torch.randn(N, J, generator=g, dtype=F64), torch.randn(V, J, generator=g, dtype=F64)
    weight = torch.rand(N, generator=g, dtype=F64) * (torch.rand(N, generator=g) > 0.4)
    return [x.to(dtype) for x in (hidden, head, teacher_hidden, teacher_head)] + [weight]


def compare(loss_of, leaves, projected, naive_logits, **tolerance):
    got = loss_of(projected)
    expected = loss_of(naive_logits)
    assert got.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(expected, leaves), **tolerance)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_every_divergence_equals_the_naive_form(name, temperature):
    function, knobs = EVERY[name]
    hidden, head, teacher_hidden, teacher_head, weight = made()
    hidden.requires_grad_(), head.requires_grad_()
    naive = function(hidden @ head.T, Dense(teacher_hidden @ teacher_head.T), weight, temperature=temperature, **knobs)
    fused_loss = function(
        Projected(hidden, head),
        Dense(Projected(teacher_hidden, teacher_head)),
        weight,
        temperature=temperature,
        **knobs,
    )
    assert fused_loss.item() == pytest.approx(naive.item(), rel=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(fused_loss, (hidden, head)), torch.autograd.grad(naive, (hidden, head))
    )


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_equals_ligers_fused_divergence(beta):
    """P17: Liger's beta is `teacher_weight` too; it divides by its own count of unmasked positions."""
    liger = pytest.importorskip("liger_kernel.chunked_loss", reason="liger-kernel is not installed")
    hidden, head, teacher_hidden, teacher_head, weight = made()
    leaves = (hidden.requires_grad_(), head.requires_grad_())
    labels = torch.where(weight > 0, 0, -100)
    theirs = liger.LigerFusedLinearJSDLoss(0.0, 1.0, beta=beta, compiled=False, chunk_size=8)
    expected = theirs(hidden, head, teacher_hidden, teacher_head, labels)
    expected_gradients = torch.autograd.grad(expected, leaves)
    function = {0.0: forward_kl, 1.0: reverse_kl}.get(beta, generalised_jensen_shannon)
    knobs = {} if beta in (0.0, 1.0) else {"teacher_weight": beta}
    share = (weight > 0).double() / (weight > 0).sum()
    loss = function(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), share, **knobs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)  # Liger sums in float32
    for gradient, expected_gradient in zip(torch.autograd.grad(loss, leaves), expected_gradients, strict=True):
        assert (gradient - expected_gradient).norm() < 1e-5 * expected_gradient.norm()


def test_cross_entropy():
    hidden, head, _, _, weight = made()
    target = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(1))
    leaves = (hidden.requires_grad_(), head.requires_grad_())
    compare(lambda z: cross_entropy(z, target, weight), leaves, Projected(hidden, head), hidden @ head.T)
    naive = (weight * torch.nn.functional.cross_entropy(hidden @ head.T, target, reduction="none")).sum()
    assert cross_entropy(Projected(hidden, head), target, weight).item() == pytest.approx(naive.item(), rel=1e-12)


@pytest.mark.parametrize("form", ["top_k", "sampled", "mapped", "sorted"])
def test_every_form_of_beliefs(form):
    hidden, head, teacher_hidden, teacher_head, weight = made()
    teacher = teacher_hidden @ teacher_head.T
    kept = teacher.log_softmax(-1).topk(4)
    function, beliefs = {
        "top_k": (reverse_kl, TopK(kept.indices, kept.values)),
        "sampled": (forward_kl, Sampled(kept.indices, torch.tensor([3, 1, 1, 2]).expand(N, 4))),
        "mapped": (reverse_kl, Mapped(Projected(teacher_hidden, teacher_head), torch.arange(V).flip(0) - 2)),
        "sorted": (universal_logit, Dense(Projected(teacher_hidden, teacher_head))),
    }[form]
    leaves = (hidden.requires_grad_(), head.requires_grad_())
    compare(lambda z: function(z, beliefs, weight), leaves, Projected(hidden, head), hidden @ head.T)


def test_bias_scale_and_softcap():
    """P27: the head's whole path, against autograd through it."""
    hidden, head, teacher_hidden, teacher_head, weight = made()
    bias = torch.randn(V, generator=torch.Generator().manual_seed(2), dtype=F64)
    leaves = (hidden.requires_grad_(), head.requires_grad_(), bias.requires_grad_())
    logits = 3.0 * torch.tanh(0.5 * (hidden @ head.T + bias) / 3.0)
    compare(
        lambda z: reverse_kl(z, Dense(Projected(teacher_hidden, teacher_head, softcap=2.0)), weight),
        leaves,
        Projected(hidden, head, bias, scale=0.5, softcap=3.0),
        logits,
    )


def test_padded_head():
    """P12: rows of the head beyond the addressable ids get no gradient."""
    hidden, head, teacher_hidden, teacher_head, weight = made()
    hidden.requires_grad_(), head.requires_grad_()
    beliefs = Dense(Projected(teacher_hidden, teacher_head[:17]), vocabulary=15)
    gradient = torch.autograd.grad(forward_kl(Projected(hidden, head), beliefs, weight), (hidden, head))
    naive = forward_kl(hidden @ head[:15].T, Dense((teacher_hidden @ teacher_head.T)[:, :15]), weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(naive, (hidden, head)))
    assert (gradient[1][15:] == 0).all()


def test_frozen_head_makes_no_gradient_of_its_size(monkeypatch):
    hidden, head, teacher_hidden, teacher_head, weight = made()
    hidden.requires_grad_()
    made_shapes = []
    zeros_like = torch.zeros_like
    monkeypatch.setattr(
        torch, "zeros_like", lambda tensor, **kw: made_shapes.append(tensor.shape) or zeros_like(tensor, **kw)
    )
    loss = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), weight)
    assert (V, H) not in made_shapes
    assert (N, H) in made_shapes
    loss.backward()
    assert head.grad is None


def test_frozen_hidden_states():
    hidden, head, teacher_hidden, teacher_head, weight = made()
    head.requires_grad_()
    loss = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), weight)
    (gradient,) = torch.autograd.grad(loss, head)
    naive = forward_kl(hidden @ head.T, Dense(teacher_hidden @ teacher_head.T), weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(naive, head)[0])


def test_masked_positions_are_never_projected():
    """P02: nan hidden states of either side where the weight is 0."""
    hidden, head, teacher_hidden, teacher_head, weight = made()
    masked = weight == 0
    assert 0 < masked.sum() < N
    clean = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), weight)
    hidden[masked], teacher_hidden[masked] = math.nan, math.inf
    hidden.requires_grad_()
    loss = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), weight)
    loss.backward()
    assert loss.item() == clean.item()
    assert (hidden.grad[masked] == 0).all()
    assert (hidden.grad[~masked] != 0).any(-1).all()


def test_empty_mask():
    """P31."""
    hidden, head, teacher_hidden, teacher_head, weight = made()
    hidden.requires_grad_(), head.requires_grad_()
    loss = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), torch.zeros_like(weight))
    loss.backward()
    assert loss.item() == 0.0
    assert (hidden.grad == 0).all()
    assert (head.grad == 0).all()


def test_leading_dimensions():
    hidden, head, teacher_hidden, teacher_head, weight = made()
    rows = slice(0, 20)
    flat = forward_kl(Projected(hidden[rows], head), Dense(Projected(teacher_hidden[rows], teacher_head)), weight[rows])
    shaped = forward_kl(
        Projected(hidden[rows].view(4, 5, H), head),
        Dense(Projected(teacher_hidden[rows].view(4, 5, J), teacher_head)),
        weight[rows].view(4, 5),
    )
    assert shaped.item() == flat.item()


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_bfloat16_inputs_at_a_small_kl(name, monkeypatch):
    """P13, P14: the head's product is float32, so the gradient is within 1 % of float64 at a KL of 0.006."""
    monkeypatch.setattr(fused, "CPU_CHUNK_ROWS", 16)
    monkeypatch.setattr(fused, "CPU_HEAD_ROWS", 400)
    function, knobs = EVERY[name]
    g = torch.Generator().manual_seed(5)
    teacher_hidden, weight = torch.randn(48, 32, generator=g, dtype=F64), torch.ones(48)
    head = (torch.randn(1500, 32, generator=g, dtype=F64) * 4 / 32**0.5).bfloat16()
    hidden = (teacher_hidden + 0.03 * torch.randn(48, 32, generator=g, dtype=F64)).bfloat16().requires_grad_()
    teacher_hidden = teacher_hidden.bfloat16()
    head.requires_grad_()
    loss = function(Projected(hidden, head), Dense(Projected(teacher_hidden, head.detach())), weight, **knobs)
    gradients = torch.autograd.grad(loss, (hidden, head))
    wide = [x.detach().double().requires_grad_() for x in (hidden, head)]
    teacher_logits = teacher_hidden.double() @ head.detach().double().T
    exact = function(wide[0] @ wide[1].T, Dense(teacher_logits), weight.double(), **knobs)
    kl = forward_kl(wide[0] @ wide[1].T, Dense(teacher_logits), weight.double()).item() / 48
    assert 0.003 < kl < 0.012
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    for gradient, exact_gradient in zip(gradients, torch.autograd.grad(exact, wide), strict=True):
        assert gradient.dtype == torch.bfloat16
        assert (gradient.double() - exact_gradient).norm() < 0.01 * exact_gradient.norm()


def test_upstream_gradient_scales_the_heads_too():
    hidden, head, teacher_hidden, teacher_head, weight = made()
    leaves = (hidden.requires_grad_(), head.requires_grad_())
    loss = forward_kl(Projected(hidden, head), Dense(Projected(teacher_hidden, teacher_head)), weight)
    once = torch.autograd.grad(loss, leaves, retain_graph=True)
    third = torch.autograd.grad(loss / 3, leaves)
    torch.testing.assert_close(third, tuple(x / 3 for x in once))


def test_nothing_of_the_size_of_the_logits_is_made(monkeypatch):
    """P29: chunks are over positions, of inputs of any shape."""
    sizes = []
    rows = fused._ProjectedLogits.rows
    monkeypatch.setattr(
        fused._ProjectedLogits,
        "rows",
        lambda *args: sizes.append((out := rows(*args)).untyped_storage().nbytes()) or out,
    )
    hidden, head, teacher_hidden, teacher_head, weight = made()
    hidden.requires_grad_()
    forward_kl(
        Projected(hidden.view(1, N, H), head), Dense(Projected(teacher_hidden.view(1, N, J), teacher_head)), weight
    ).backward()
    assert max(sizes) == 6 * V * hidden.element_size() < N * V * hidden.element_size()


def test_widths_that_do_not_belong_together():
    hidden, _, _, teacher_head, weight = made()
    with pytest.raises(RecipeError, match="width 5 and a head for 7"):
        forward_kl(Projected(hidden, teacher_head), Dense(torch.zeros(N, V)), weight)


class TestTokenLogprobs:
    target = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize("projected", [True, False])
    def test_value_and_gradient(self, projected):
        hidden, head, _, _, weight = made()
        leaves = (hidden.requires_grad_(), head.requires_grad_())
        logits = hidden @ head.T
        got = token_logprobs(Projected(hidden, head) if projected else logits, self.target, weight)
        expected = logits.log_softmax(-1).gather(-1, self.target[:, None])[:, 0] * (weight != 0)
        torch.testing.assert_close(got, expected)
        upstream = torch.randn(N, generator=torch.Generator().manual_seed(4), dtype=F64)
        torch.testing.assert_close(
            torch.autograd.grad((upstream * got).sum(), leaves, retain_graph=True),
            torch.autograd.grad((upstream * expected).sum(), leaves),
        )

    def test_gradcheck(self):
        weight = torch.tensor([1.0, 0.0, 1.0])
        logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: token_logprobs(z, torch.tensor([1, -100, 3]), weight), (logits,))

    def test_of_a_teacher(self):
        _, _, teacher_hidden, teacher_head, weight = made()
        got = target_logprobs(Projected(teacher_hidden, teacher_head), self.target, weight, vocabulary=18)
        logits = (teacher_hidden @ teacher_head.T)[:, :18]
        expected = logits.log_softmax(-1).gather(-1, self.target.clamp(max=17)[:, None])[:, 0] * (weight != 0)
        seen = self.target < 18
        torch.testing.assert_close(got[seen], expected[seen])


def test_blended_teachers():
    g = torch.Generator().manual_seed(6)
    a, b = (torch.randn(N, V, generator=g, dtype=F64) for _ in range(2))
    shares = torch.rand(N, 1, generator=g, dtype=F64)
    shares[3] = 0.0
    shares = torch.cat([shares, 1 - shares], -1)
    student, weight = torch.randn(N, V, generator=g, dtype=F64), torch.ones(N, dtype=F64)
    mixture = (shares[:, :1] * a.softmax(-1) + shares[:, 1:] * b.softmax(-1)).log()
    expected = forward_kl(student, Dense(mixture), weight)
    assert forward_kl(student, Dense(Blended((a, b), shares)), weight).item() == pytest.approx(expected.item())
    logits = shares[:, :1] * a + shares[:, 1:] * b
    expected = forward_kl(student, Dense(logits), weight)
    got = forward_kl(student, Dense(Blended((a, b), shares, of_logits=True)), weight)
    assert got.item() == pytest.approx(expected.item())
