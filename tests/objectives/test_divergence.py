"""Survey 4.2 and 11: golden values, autograd equality, limits, properties, and the pitfalls P02, P09-P20, P31."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels import positions
from stillhouse.kernels.beliefs import Dense, Sampled, TopK
from stillhouse.objectives import divergence
from stillhouse.objectives.divergence import (
    adaptive_kl,
    alpha_beta,
    forward_kl,
    generalised_jensen_shannon,
    jensen_shannon,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from stillhouse.testing.formulas import EVERY, loss_and_gradient, naive

F64 = torch.float64
P = tensor([[0.5, 0.3, 0.2]], dtype=F64)
Q = tensor([[0.2, 0.5, 0.3]], dtype=F64)
ONE = torch.ones(1, dtype=F64)
BOUND = {"rel": 1e-12, "abs": 0}


def logits(*shape, seed=0, scale=2.0, dtype=F64):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)).to(dtype)


def golden(function, **knobs):
    return function(Q.log(), Dense(P.log()), ONE, **knobs).item()


@pytest.mark.parametrize(
    ("function", "knobs", "value"),
    [
        pytest.param(forward_kl, {}, 0.22380465718564752, id="G01-forward"),
        pytest.param(reverse_kl, {}, 0.19379419794061362, id="G01-reverse"),
        pytest.param(jensen_shannon, {}, 0.05087461253959834, id="G02"),
        pytest.param(generalised_jensen_shannon, {"teacher_weight": 0.5}, 0.05087461253959834, id="G02-generalised"),
        pytest.param(generalised_jensen_shannon, {"teacher_weight": 0.1}, 0.019661226327948242, id="G03-0.1"),
        pytest.param(generalised_jensen_shannon, {"teacher_weight": 0.9}, 0.01756259830195902, id="G03-0.9"),
        pytest.param(total_variation, {}, 0.3, id="G05"),
        pytest.param(skew_forward_kl, {"skew": 0.1}, 0.17295059468928076, id="G06-forward"),
        pytest.param(skew_reverse_kl, {"skew": 0.1}, 0.15926296886461588, id="G06-reverse"),
    ],
)
def test_golden_values(function, knobs, value):
    """G01-G06; R27 (GKD), R28 (DistiLLM): each divergence at the toy pair."""
    assert golden(function, **knobs) == pytest.approx(value, rel=1e-12)


def test_generalised_jensen_shannon_tends_to_the_kls_g04():
    """G04 and P18: the limits need the division; the divergence itself vanishes at both ends."""
    assert golden(generalised_jensen_shannon, teacher_weight=1e-6) / 1e-6 == pytest.approx(0.22380437558, rel=1e-8)
    assert golden(generalised_jensen_shannon, teacher_weight=1 - 1e-6) / 1e-6 == pytest.approx(0.1937940163, rel=1e-8)


def test_mixture_is_of_probabilities_g07():
    """G07: mixing log-probabilities gives 0.1044, which is not the Jensen-Shannon divergence."""
    assert abs(golden(jensen_shannon) - 0.1043997137815652) > 0.05


def test_temperature_keeps_hintons_scale_g08():
    student, teacher = tensor([[0.0, 1.0, 2.0]], dtype=F64), tensor([[2.0, 1.0, 0.0]], dtype=F64)
    assert forward_kl(student, Dense(teacher), ONE, temperature=2.0).item() == pytest.approx(
        1.2806266713192258, rel=1e-12
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_equals_autograd_of_the_formula(name, temperature):
    function, knobs = EVERY[name]
    student, teacher, weight = logits(4, 9, seed=1), logits(4, 9, seed=2), tensor([1.0, 0.0, 0.3, 2.0], dtype=F64)

    def formula(z, weight):
        p, q = (teacher / temperature).softmax(-1), (z / temperature).softmax(-1)
        return temperature**2 * (weight * naive(name, p, q)).sum()

    expected = loss_and_gradient(formula, student, weight)
    got = loss_and_gradient(function, student, Dense(teacher), weight, temperature=temperature, **knobs)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("adaptive_kl", "total_variation")])
def test_gradcheck(name):
    """Central differences; the adaptive KL (detached weight) and total variation (a kink) are left to the test above."""
    function, knobs = EVERY[name]
    teacher, weight = Dense(logits(2, 5, seed=3)), tensor([1.0, 0.5], dtype=F64)
    student = logits(2, 5, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: function(z, teacher, weight, **knobs), (student,))


@pytest.mark.parametrize(("alpha", "beta", "limit"), [(1.0, 0.0, forward_kl), (0.0, 1.0, reverse_kl)])
def test_alpha_beta_ends_are_the_kls(alpha, beta, limit):
    student, teacher, weight = logits(3, 7, seed=5), Dense(logits(3, 7, seed=6)), torch.ones(3, dtype=F64)
    exact = loss_and_gradient(limit, student, teacher, weight)
    at_end = loss_and_gradient(alpha_beta, student, teacher, weight, alpha=alpha, beta=beta)
    torch.testing.assert_close(at_end, exact, rtol=1e-9, atol=1e-10)
    near = loss_and_gradient(alpha_beta, student, teacher, weight, alpha=max(alpha, 1e-6), beta=max(beta, 1e-6))
    torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-5)


def test_alpha_beta_half_is_hellinger():
    """alpha = beta = 1/2 is 2 sum (sqrt p - sqrt q)^2: -4 (sum sqrt(p q) - 1)."""
    by_hand = 2 * ((P.sqrt() - Q.sqrt()) ** 2).sum().item()
    assert golden(alpha_beta, alpha=0.5, beta=0.5) == pytest.approx(by_hand, rel=1e-12)


def test_adaptive_kl_by_hand():
    """Head: tokens until half the teacher's mass, here the first alone, gap 0.3 of 0.6: an even mix."""
    assert golden(adaptive_kl) == pytest.approx((0.22380465718564752 + 0.19379419794061362) / 2, rel=1e-12)
    assert golden(adaptive_kl, head_mass=0.6) == pytest.approx(
        5 / 6 * 0.22380465718564752 + 1 / 6 * 0.19379419794061362, rel=1e-12
    )


@pytest.mark.parametrize("name", EVERY)
def test_nothing_to_learn_from_an_equal_teacher(name):
    """P11: zero, not the teacher's entropy; and no gradient."""
    function, knobs = EVERY[name]
    same = logits(5, 40, seed=7, dtype=torch.float32)
    loss, gradient = loss_and_gradient(function, same, Dense(same.clone()), torch.ones(5), **knobs)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_constant_shift_changes_nothing_and_gradient_sums_to_zero(name):
    function, knobs = EVERY[name]
    student, teacher, weight = logits(3, 11, seed=8), logits(3, 11, seed=9), torch.ones(3, dtype=F64)
    loss, gradient = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
    shifted = loss_and_gradient(function, student + 5.0, Dense(teacher - 3.0), weight, **knobs)
    torch.testing.assert_close(shifted, (loss, gradient), rtol=1e-9, atol=1e-11)
    assert gradient.sum(-1).abs().max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=2, max_size=8))
def test_properties_of_survey_11_3(pairs):
    """Never negative, positive where the two differ; Jensen-Shannon symmetric and at most log 2."""
    a = tensor([[pair[0] for pair in pairs]], dtype=F64)
    b = tensor([[pair[1] for pair in pairs]], dtype=F64)
    gap = (a.softmax(-1) - b.softmax(-1)).abs().max().item()
    for name, (function, knobs) in EVERY.items():
        value = function(a, Dense(b), ONE, **knobs).item()
        assert value >= -1e-12, name
        if gap > 1e-3:
            assert value > 0, name
    value = jensen_shannon(a, Dense(b), ONE).item()
    assert value <= math.log(2) + 1e-12
    assert value == pytest.approx(jensen_shannon(b, Dense(a), ONE).item(), rel=1e-9, abs=1e-12)
    assert skew_reverse_kl(a, Dense(b), ONE, skew=0.1).item() <= -math.log(0.1)


def test_any_leading_shape():
    student, teacher, weight = logits(2, 3, 6, seed=10), logits(2, 3, 6, seed=11), torch.rand(2, 3, dtype=F64)
    flat = loss_and_gradient(forward_kl, student.view(6, 6), Dense(teacher.view(6, 6)), weight.view(6))
    loss, gradient = loss_and_gradient(forward_kl, student, Dense(teacher), weight)
    torch.testing.assert_close((loss, gradient.view(6, 6)), flat)


@pytest.mark.parametrize("elements", [1, 13, 60])
@pytest.mark.parametrize("name", EVERY)
def test_blocks_change_nothing(name, elements, monkeypatch):
    function, knobs = EVERY[name]
    student, teacher, weight = logits(5, 12, seed=12), Dense(logits(5, 12, seed=13)), torch.rand(5, dtype=F64)
    whole = loss_and_gradient(function, student, teacher, weight, **knobs)
    monkeypatch.setattr(positions, "CPU_ELEMENTS", elements)
    torch.testing.assert_close(loss_and_gradient(function, student, teacher, weight, **knobs), whole)


@pytest.mark.parametrize("name", EVERY)
def test_masked_positions_do_not_exist(name):
    """P02: not even nan logits at masked positions, of either side, reach the loss or the gradient."""
    function, knobs = EVERY[name]
    student, teacher = logits(4, 8, seed=14), logits(4, 8, seed=15)
    weight = tensor([0.0, 1.0, 0.0, 1.0], dtype=F64)
    loss, gradient = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
    student[0], teacher[2] = math.nan, math.inf
    loss_again, gradient_again = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
    assert loss_again == loss
    assert torch.equal(gradient_again, gradient)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3]] != 0).any()


@pytest.mark.parametrize("name", EVERY)
def test_empty_mask(name):
    """P31: loss 0, gradient 0, and still part of the graph."""
    function, knobs = EVERY[name]
    student = logits(3, 8, dtype=torch.float32).requires_grad_()
    loss = function(student, Dense(logits(3, 8, seed=1, dtype=torch.float32)), torch.zeros(3), **knobs)
    assert loss.item() == 0.0
    assert loss.requires_grad
    loss.backward()
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_no_positions_at_all():
    student = torch.zeros(0, 8, requires_grad=True)
    loss = forward_kl(student, Dense(torch.zeros(0, 8)), torch.zeros(0))
    loss.backward()
    assert (loss.item(), student.grad.shape) == (0.0, (0, 8))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(name, dtype):
    """P19, P20: impossible tokens on either side, +-1e4 logits, T = 0.05."""
    function, knobs = EVERY[name]
    student, teacher = logits(4, 8, seed=16, dtype=dtype), logits(4, 8, seed=17, dtype=dtype)
    teacher[0, 0] = student[0, 3] = -math.inf
    teacher[1, 0] = student[1, 0] = -math.inf
    teacher[2, 1], student[2, 2] = 1e4, 1e4
    student[3, 4] = -1e4
    for temperature in (1.0, 0.05):
        loss, gradient = loss_and_gradient(
            function, student, Dense(teacher), torch.ones(4), temperature=temperature, **knobs
        )
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert loss >= 0


@pytest.mark.parametrize("function", [forward_kl, reverse_kl, jensen_shannon, skew_forward_kl])
def test_extreme_logits_are_exact(function):
    """Where the true value is finite, it is the value: float64 at +-1e4 against hand-computed ones."""
    student, teacher = tensor([[1e4, 0.0]], dtype=F64), tensor([[0.0, 1e4]], dtype=F64)
    by_hand = {
        forward_kl: 1e4,
        reverse_kl: 1e4,
        jensen_shannon: math.log(2),
        skew_forward_kl: -math.log(0.1),
    }
    assert function(student, Dense(teacher), ONE).item() == pytest.approx(by_hand[function], rel=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_token_impossible_for_both_is_no_token(name):
    function, knobs = EVERY[name]
    student, teacher, weight = logits(3, 6, seed=18), logits(3, 6, seed=19), torch.ones(3, dtype=F64)
    loss, gradient = loss_and_gradient(function, student[:, :5], Dense(teacher[:, :5]), weight, **knobs)
    student[:, 5] = teacher[:, 5] = -math.inf
    loss_again, gradient_again = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
    assert loss_again.item() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(gradient_again[:, :5], gradient)
    assert (gradient_again[:, 5] == 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_logits_lose_nothing_after_rounding(name):
    """P13: at a KL near 0.006 the gradient is within 1 % of float64 on the same rounded logits."""
    function, knobs = EVERY[name]
    teacher = logits(16, 500, seed=20).bfloat16()
    student = (teacher.double() + 0.11 * logits(16, 500, seed=21, scale=1.0)).bfloat16()
    weight = torch.ones(16)
    kl = forward_kl(student.double(), Dense(teacher.double()), weight.double()).item() / 16
    assert 0.004 < kl < 0.008
    loss, gradient = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
    exact, exact_gradient = loss_and_gradient(
        function, student.double(), Dense(teacher.double()), weight.double(), **knobs
    )
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(exact.item(), rel=0.001)
    assert (gradient.double() - exact_gradient).norm() < 0.01 * exact_gradient.norm()


def test_float32_sum_over_many_positions_keeps_its_digits():
    """P14: 40,000 equal positions cost 40,000 times one."""
    student, teacher = logits(1, 3, seed=22, dtype=torch.float32), logits(1, 3, seed=23, dtype=torch.float32)
    one = forward_kl(student, Dense(teacher), torch.ones(1)).item()
    many = forward_kl(student.expand(40_000, 3), Dense(teacher.expand(40_000, 3)), torch.ones(40_000)).item()
    assert many == pytest.approx(40_000 * one, rel=3e-7)


def test_high_temperature_gradient_is_the_logit_gap():
    """P10: with T^2 the gradient tends to (z_student - z_teacher) / V, both centred."""
    student, teacher = logits(2, 6, seed=24), logits(2, 6, seed=25)
    _, gradient = loss_and_gradient(forward_kl, student, Dense(teacher), torch.ones(2, dtype=F64), temperature=1e5)
    gap = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    torch.testing.assert_close(gradient, gap / 6, rtol=1e-3, atol=1e-4)


def test_a_certain_teacher_is_cross_entropy():
    """P09: nothing is divided, neither by N nor by V."""
    student, target = logits(4, 9, seed=26), tensor([1, 0, 8, 3])
    teacher = torch.full((4, 9), -math.inf, dtype=F64).scatter(1, target[:, None], 0.0)
    loss = forward_kl(student, Dense(teacher), torch.ones(4, dtype=F64)).item()
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(student, target, reduction="sum").item(), rel=1e-12)


def test_upstream_gradient_scales_and_graph_can_be_kept():
    student = logits(2, 5).requires_grad_()
    loss = forward_kl(student, Dense(logits(2, 5, seed=1)), torch.ones(2, dtype=F64))
    (once,) = torch.autograd.grad(loss, student, retain_graph=True)
    (thrice,) = torch.autograd.grad(3 * loss, student)
    torch.testing.assert_close(thrice, 3 * once)


def test_no_gradient_reaches_the_teacher_and_none_is_made_without_grad():
    """P21: the teacher is a constant."""
    teacher = logits(2, 5).requires_grad_()
    student = logits(2, 5, seed=1).requires_grad_()
    forward_kl(student, Dense(teacher), torch.ones(2, dtype=F64)).backward()
    assert teacher.grad is None
    with torch.no_grad():
        assert not forward_kl(student, Dense(teacher), torch.ones(2, dtype=F64)).requires_grad


def test_inputs_are_left_alone():
    student, teacher, weight = logits(3, 5), logits(3, 5, seed=1), torch.ones(3, dtype=F64)
    before = student.clone(), teacher.clone(), weight.clone()
    for function, knobs in EVERY.values():
        loss_and_gradient(function, student, Dense(teacher), weight, temperature=2.0, **knobs)
    assert all(torch.equal(a, b) for a, b in zip(before, (student, teacher, weight), strict=True))


def test_autocast_does_not_round():
    student, teacher = logits(4, 50, dtype=torch.float32), logits(4, 50, seed=1, dtype=torch.float32)
    plain = loss_and_gradient(forward_kl, student, Dense(teacher), torch.ones(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss_and_gradient(forward_kl, student, Dense(teacher), torch.ones(4)), plain)


class TestVocabulary:
    """P12: the families whose heads are padded to different sizes (151,936 and 152,064 of one tokenizer)."""

    @pytest.mark.parametrize(("student_width", "teacher_width"), [(10, 13), (13, 10), (13, 13)])
    def test_padding_columns_do_not_exist(self, student_width, teacher_width):
        student, teacher = logits(3, student_width, seed=27), logits(3, teacher_width, seed=28)
        weight = torch.ones(3, dtype=F64)
        for function, knobs in EVERY.values():
            loss, gradient = loss_and_gradient(function, student, Dense(teacher, vocabulary=9), weight, **knobs)
            expected, expected_gradient = loss_and_gradient(
                function, student[:, :9], Dense(teacher[:, :9]), weight, **knobs
            )
            assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
            torch.testing.assert_close(gradient[:, :9], expected_gradient)
            assert (gradient[:, 9:] == 0).all()

    def test_different_widths_are_refused_without_it(self):
        with pytest.raises(RecipeError, match=r"13 columns .* 10.* vocabulary"):
            forward_kl(logits(3, 10), Dense(logits(3, 13)), torch.ones(3))

    def test_more_ids_than_columns_are_refused(self):
        with pytest.raises(RecipeError, match="11 is more than the 10 columns"):
            forward_kl(logits(3, 10), Dense(logits(3, 13), vocabulary=11), torch.ones(3))

    def test_of_a_top_k(self):
        student, teacher = logits(2, 12, seed=29), logits(2, 9, seed=30)
        kept = teacher.log_softmax(-1).topk(3)
        weight = torch.ones(2, dtype=F64)
        loss = forward_kl(student, TopK(kept.indices, kept.values, vocabulary=9), weight)
        assert loss.item() == pytest.approx(
            forward_kl(student[:, :9], TopK(kept.indices, kept.values), weight).item(), rel=1e-12
        )


class TestTopK:
    """P15 and survey 4.2: exact on the partition into K tokens and a tail."""

    def partition(self, teacher, student, k):
        p, q = teacher.softmax(-1), student.softmax(-1)
        ids = p.topk(k).indices
        pk, qk = p.gather(-1, ids), q.gather(-1, ids)
        tails = [1 - x.sum(-1, keepdim=True) for x in (pk, qk)]
        return torch.cat([pk, tails[0]], -1), torch.cat([qk, tails[1]], -1)

    @pytest.mark.parametrize("name", EVERY)
    def test_equals_autograd_on_the_partition(self, name):
        function, knobs = EVERY[name]
        student, teacher = logits(4, 10, seed=31), logits(4, 10, seed=32)
        weight = tensor([1.0, 0.0, 2.0, 0.5], dtype=F64)
        kept = teacher.log_softmax(-1).topk(3)
        expected = loss_and_gradient(lambda z: (weight * naive(name, *self.partition(teacher, z, 3))).sum(), student)
        got = loss_and_gradient(function, student, TopK(kept.indices, kept.values), weight, **knobs)
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon", "total_variation"])
    def test_is_a_lower_bound_that_grows_to_equality(self, name):
        function, knobs = EVERY[name]
        student, teacher, weight = logits(5, 12, seed=33), logits(5, 12, seed=34), torch.ones(5, dtype=F64)
        full = loss_and_gradient(function, student, Dense(teacher), weight, **knobs)
        last = 0.0
        for k in range(1, 13):
            kept = teacher.log_softmax(-1).topk(k)
            loss, gradient = loss_and_gradient(function, student, TopK(kept.indices, kept.values), weight, **knobs)
            assert last - 1e-12 <= loss.item() <= full[0].item() + 1e-12
            last = loss.item()
        torch.testing.assert_close((loss, gradient), full, rtol=1e-9, atol=1e-11)

    def test_zero_only_when_the_partition_agrees(self):
        teacher = logits(2, 10, seed=35)
        kept = teacher.log_softmax(-1).topk(4)
        student = teacher.clone()
        rest = torch.ones(2, 10, dtype=torch.bool).scatter(1, kept.indices, False)
        student[rest] = student[rest].view(2, 6).flip(-1).reshape(-1)  # the tail reshuffled: same mass
        beliefs, weight = TopK(kept.indices, kept.values), torch.ones(2, dtype=F64)
        loss, gradient = loss_and_gradient(forward_kl, student, beliefs, weight)
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert gradient.abs().max() < 1e-12
        assert forward_kl(student + logits(2, 10, seed=36), beliefs, weight).item() > 0.01

    def test_gradient_is_closer_than_renormalising_both_sides(self):
        """The measured case of k = 20 in 1000: the tail keeps direction and length, renormalising loses both."""
        student, teacher = logits(4, 1000, seed=37, scale=1.0), logits(4, 1000, seed=38, scale=3.0)
        weight = torch.ones(4, dtype=F64)
        kept = teacher.log_softmax(-1).topk(20)
        _, full = loss_and_gradient(forward_kl, student, Dense(teacher), weight)
        _, tail = loss_and_gradient(forward_kl, student, TopK(kept.indices, kept.values), weight)

        def both_renormalised(z):
            p, q = kept.values.softmax(-1), z.gather(-1, kept.indices).log_softmax(-1)
            return (p * (p.log() - q)).sum()

        _, biased = loss_and_gradient(both_renormalised, student)
        cosine = torch.nn.functional.cosine_similarity
        assert cosine(tail.flatten(), full.flatten(), dim=0) > 0.98
        assert 0.95 < tail.norm() / full.norm() < 1.05
        assert cosine(biased.flatten(), full.flatten(), dim=0) < 0.9

    @pytest.mark.parametrize("name", EVERY)
    def test_padding_is_nothing(self, name):
        function, knobs = EVERY[name]
        student, teacher, weight = logits(2, 10, seed=39), logits(2, 10, seed=40), torch.ones(2, dtype=F64)
        kept = teacher.log_softmax(-1).topk(3)
        expected = loss_and_gradient(function, student, TopK(kept.indices, kept.values), weight, **knobs)
        ids = torch.cat([kept.indices, torch.full((2, 2), -1)], -1)
        values = torch.cat([kept.values, torch.full((2, 2), 7.0)], -1)
        padded = loss_and_gradient(function, student, TopK(ids, values), weight, **knobs)
        torch.testing.assert_close(padded, expected, rtol=1e-10, atol=1e-12)

    def test_small_student_tail_in_float32(self):
        """1 minus the kept mass would be 0 here: the tail is summed directly."""
        student = tensor([[30.0, 0.0, 0.0, 0.0]])
        beliefs = TopK(tensor([[0]]), tensor([[math.log(0.5)]]))
        loss, gradient = loss_and_gradient(forward_kl, student, beliefs, torch.ones(1))
        tail = 3 * math.exp(-30)
        assert loss.item() == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(0.5 / tail), rel=1e-5)
        torch.testing.assert_close(gradient, tensor([[0.5, -1 / 6, -1 / 6, -1 / 6]]), rtol=1e-5, atol=1e-6)

    def test_a_student_that_rules_out_the_whole_tail_learns_what_is_kept(self):
        student = tensor([[1.0, 2.0, -math.inf, -math.inf]], dtype=F64)
        p = tensor([[0.4, 0.5]], dtype=F64)  # of the tokens 1 and 0; the tail has .1
        loss, gradient = loss_and_gradient(forward_kl, student, TopK(tensor([[1, 0]]), p.log(), vocabulary=4), ONE)
        assert loss.isfinite()
        q = student.softmax(-1)[0]
        torch.testing.assert_close(gradient[0], q - tensor([0.5, 0.4, 0.0, 0.0], dtype=F64))

    def test_a_temperature_needs_the_whole_distribution(self):
        kept = logits(2, 10).log_softmax(-1).topk(3)
        with pytest.raises(RecipeError, match="tail of a top-k"):
            forward_kl(logits(2, 10), TopK(kept.indices, kept.values), torch.ones(2), temperature=2.0)


class TestSampled:
    """P16: counts over draws, equal ids summed, no renormalisation over what was drawn."""

    def test_gradient_is_student_minus_counts(self):
        student = logits(1, 6, seed=41)
        beliefs = Sampled(tensor([[4, 1, 4, 0]]), tensor([[2, 1, 1, 0]]))
        loss, gradient = loss_and_gradient(forward_kl, student, beliefs, ONE)
        empirical = tensor([0.0, 0.25, 0.0, 0.0, 0.75, 0.0], dtype=F64)
        torch.testing.assert_close(gradient[0], student.softmax(-1)[0] - empirical)
        log_q = student.log_softmax(-1)[0]
        by_hand = 0.25 * (math.log(0.25) - log_q[1]) + 0.75 * (math.log(0.75) - log_q[4])
        assert loss.item() == pytest.approx(by_hand.item(), rel=1e-12)

    def test_ids_that_are_told_to_be_distinct_are_not_looked_for_again(self):
        student, (ids, counts) = logits(2, 6, seed=41), (tensor([[4, 1, 0], [2, 5, 3]]), tensor([[2, 1, 0], [1, 1, 3]]))
        told, found = (
            loss_and_gradient(forward_kl, student, Sampled(ids, counts, distinct=distinct), torch.ones(2, dtype=F64))
            for distinct in (True, False)
        )
        assert told[0].item() == found[0].item()
        assert torch.equal(told[1], found[1])

    def test_gradient_is_unbiased(self):
        """Monte Carlo: the mean over 20,000 caches of 5 draws is the dense gradient, to 4 standard errors."""
        draws, caches = 5, 20_000
        student, teacher = logits(1, 6, seed=42), logits(1, 6, seed=43)
        _, dense = loss_and_gradient(forward_kl, student, Dense(teacher), ONE)
        p = teacher.softmax(-1)
        ids = torch.multinomial(
            p.expand(caches, 6), draws, replacement=True, generator=torch.Generator().manual_seed(0)
        )
        beliefs = Sampled(ids, torch.ones_like(ids))
        _, gradient = loss_and_gradient(
            forward_kl, student.expand(caches, 6), beliefs, torch.full((caches,), 1 / caches, dtype=F64)
        )
        standard_error = (p * (1 - p) / draws / caches).sqrt()
        assert ((gradient.sum(0) - dense[0]).abs() < 4 * standard_error[0]).all()

    def test_importance_weights_correct_another_proposal(self):
        """Draws from p^0.5 with weights p / proposal: unbiased as the number of draws grows."""
        teacher, student = logits(1, 5, seed=44), logits(1, 5, seed=45)
        p, proposal = teacher.softmax(-1), (0.5 * teacher).softmax(-1)
        ids = torch.multinomial(proposal, 200_000, replacement=True, generator=torch.Generator().manual_seed(1))
        counts = torch.bincount(ids[0], minlength=5).to(F64)
        beliefs = Sampled(torch.arange(5)[None], (counts * (p / proposal)[0])[None])
        _, gradient = loss_and_gradient(forward_kl, student, beliefs, ONE)
        torch.testing.assert_close(gradient, student.softmax(-1) - p, rtol=0, atol=0.01)

    @pytest.mark.parametrize("name", [name for name in EVERY if name != "forward_kl"])
    def test_other_divergences_are_refused(self, name):
        function, knobs = EVERY[name]
        with pytest.raises(RecipeError, match="forward_kl"):
            function(logits(1, 6), Sampled(tensor([[1]]), tensor([[1]])), ONE, **knobs)


@pytest.mark.parametrize(
    ("function", "knobs", "message"),
    [
        (forward_kl, {"temperature": 0.0}, "temperature 0.0 must be above 0"),
        (generalised_jensen_shannon, {"teacher_weight": 0.0}, "forward_kl for a beta of 0"),
        (generalised_jensen_shannon, {"teacher_weight": 1.0}, "reverse_kl for 1"),
        (skew_forward_kl, {"skew": 1.0}, "skew 1.0"),
        (skew_reverse_kl, {"skew": -0.1}, "skew -0.1"),
        (alpha_beta, {"alpha": -0.1, "beta": 0.5}, "alpha -0.1"),
        (alpha_beta, {"alpha": 0.0, "beta": 0.0}, "not both 0"),
        (adaptive_kl, {"head_mass": 1.0}, "head_mass 1.0"),
    ],
)
def test_knobs_out_of_range_are_refused(function, knobs, message):
    with pytest.raises(RecipeError, match=message):
        function(logits(1, 4), Dense(logits(1, 4)), ONE, **knobs)


def test_positions_must_agree():
    with pytest.raises(RecipeError, match=r"3 positions .* 4"):
        forward_kl(logits(4, 5), Dense(logits(3, 5)), torch.ones(4))
    with pytest.raises(RecipeError, match=r"mask has 3 positions .* 4"):
        forward_kl(logits(4, 5), Dense(logits(4, 5)), torch.ones(3))


@pytest.mark.parametrize("splits", [[8], [4, 4], [1] * 8, [7, 1]])
def test_sums_over_micro_batches_add_up(splits):
    """P06: the same tokens in any micro-batches give the same sum and gradient."""
    student, teacher, weight = logits(8, 6, seed=46), logits(8, 6, seed=47), torch.rand(8, dtype=F64)
    whole = loss_and_gradient(forward_kl, student, Dense(teacher), weight)
    leaf = student.clone().requires_grad_()
    parts = zip(leaf.split(splits), teacher.split(splits), weight.split(splits), strict=True)
    total = sum(forward_kl(z, Dense(t), w) for z, t, w in parts)
    total.backward()
    torch.testing.assert_close((total.detach(), leaf.grad), whole)


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equals_trl_generalized_jsd(dtype, beta, temperature, monkeypatch):
    """P17: TRL's beta is `teacher_weight`, 0 the forward and 1 the reverse KL; TRL has no T^2."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    gkd = pytest.importorskip("trl.experimental.gkd", reason="trl is not installed")
    student, teacher = logits(2, 5, 30, seed=48, dtype=dtype), logits(2, 5, 30, seed=49, dtype=dtype)
    labels = torch.randint(0, 30, (2, 5), generator=torch.Generator().manual_seed(0))
    labels[0, :2] = labels[1, 3:] = -100
    weight = (labels != -100).float()
    # TRL rounds bfloat16 inside its softmax: compared on the same rounded values
    up = torch.float32 if dtype == torch.bfloat16 else dtype
    expected, expected_gradient = loss_and_gradient(
        lambda z: gkd.GKDTrainer.generalized_jsd_loss(
            z, teacher.to(up), labels=labels, beta=beta, temperature=temperature, reduction="sum"
        ),
        student.to(up),
    )
    function = {0.0: forward_kl, 1.0: reverse_kl}.get(beta, generalised_jensen_shannon)
    knobs = {} if beta in (0.0, 1.0) else {"teacher_weight": beta}
    loss, gradient = loss_and_gradient(function, student, Dense(teacher), weight, temperature=temperature, **knobs)
    tolerance = {F64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-5}[dtype]
    assert loss.item() == pytest.approx(temperature**2 * expected.item(), rel=tolerance)
    gap = (gradient.to(up) - temperature**2 * expected_gradient).norm() / expected_gradient.norm()
    assert gap < (0.005 * temperature**2 if dtype == torch.bfloat16 else tolerance * temperature**2)


def test_public_names_are_the_divergences():
    assert set(divergence.__all__) >= {function.__name__ for function, _ in EVERY.values()}
