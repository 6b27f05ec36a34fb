"""P26, G14 and survey 4.6: teachers with other tokenizers."""

import math

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense, Mapped
from stillhouse.objectives.cross_tokenizer import hybrid, span_likelihood
from stillhouse.objectives.divergence import forward_kl, universal_logit
from stillhouse.testing.formulas import EVERY, loss_and_gradient, naive

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)


def logits(*shape, seed=0):
    return 1.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class TestUniversalLogit:
    def test_golden_g14(self):
        teacher = tensor([[0.5, 0.3, 0.2]], dtype=F64).log()
        for student, beliefs in [(torch.zeros(1, 4, dtype=F64), teacher), (teacher, torch.zeros(1, 4, dtype=F64))]:
            assert universal_logit(student, Dense(beliefs), ONE).item() == pytest.approx(0.6, rel=1e-12)

    def test_blind_to_permutations(self):
        """Survey 11.3."""
        student, teacher, weight = logits(3, 6), logits(3, 9, seed=1), torch.ones(3, dtype=F64)
        loss, gradient = loss_and_gradient(universal_logit, student, Dense(teacher), weight)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
        permuted, permuted_gradient = loss_and_gradient(
            universal_logit, student[:, order], Dense(teacher.flip(-1)), weight
        )
        assert permuted.item() == pytest.approx(loss.item(), rel=1e-12)
        torch.testing.assert_close(permuted_gradient, gradient[:, order])

    @pytest.mark.parametrize("teacher_width", [4, 6, 9])
    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_equals_autograd_of_the_formula(self, teacher_width, temperature):
        student, teacher = logits(3, 6), logits(3, teacher_width, seed=1)
        weight = tensor([1.0, 0.0, 0.5], dtype=F64)

        def formula(z):
            p, q = (x.div(temperature).softmax(-1).sort(-1, descending=True).values for x in (teacher, z))
            width = max(p.shape[-1], q.shape[-1])
            p, q = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in (p, q))
            return temperature**2 * (weight * (p - q).abs().sum(-1)).sum()

        torch.testing.assert_close(
            loss_and_gradient(universal_logit, student, Dense(teacher), weight, temperature=temperature),
            loss_and_gradient(formula, student),
        )

    def test_needs_the_whole_distribution(self):
        with pytest.raises(RecipeError, match="dense logits"):
            universal_logit(logits(1, 4), Mapped(logits(1, 4), torch.arange(4)), ONE)


class TestMapped:
    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_identical_tokenizers_give_the_plain_divergence(self, name, temperature):
        """P26; a permuted vocabulary too."""
        function, knobs = EVERY[name]
        student, teacher, weight = logits(3, 7), logits(3, 7, seed=1), torch.rand(3, dtype=F64)
        expected = loss_and_gradient(function, student, Dense(teacher), weight, temperature=temperature, **knobs)
        order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
        got = loss_and_gradient(
            function, student, Mapped(teacher[:, order], order), weight, temperature=temperature, **knobs
        )
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("name", EVERY)
    def test_equals_autograd_on_the_partition(self, name):
        """Teacher tokens 0 and 3 count for the student's 2, token 1 for 0; 2 and 4 for none, like the student's 1, 3, 4."""
        function, knobs = EVERY[name]
        student, teacher, weight = logits(4, 5), logits(4, 5, seed=1), torch.rand(4, dtype=F64)
        ids = tensor([2, 0, -1, 2, -1])

        def formula(z):
            p, q = teacher.softmax(-1), z.softmax(-1)
            p = torch.stack([p[:, 1], p[:, 0] + p[:, 3], p[:, 2] + p[:, 4]], -1)
            q = torch.stack([q[:, 0], q[:, 2], q[:, 1] + q[:, 3] + q[:, 4]], -1)
            return (weight * naive(name, p, q)).sum()

        got = loss_and_gradient(function, student, Mapped(teacher, ids), weight, **knobs)
        torch.testing.assert_close(got, loss_and_gradient(formula, student), rtol=1e-8, atol=1e-10)


class TestHybrid:
    ids = tensor([2, -1, 0, -1])

    def test_is_the_kl_of_the_matched_and_the_sorted_gap_of_the_rest(self):
        student, teacher, weight = logits(3, 5), logits(3, 4, seed=1), torch.rand(3, dtype=F64)

        def formula(z):
            p, q = teacher.softmax(-1), z.softmax(-1)
            matched = naive(
                "forward_kl",
                torch.stack([p[:, 2], p[:, 0], p[:, 1] + p[:, 3]], -1),
                torch.stack([q[:, 0], q[:, 2], q[:, [1, 3, 4]].sum(-1)], -1),
            )
            rest_p = torch.nn.functional.pad(p[:, [1, 3]].sort(-1, descending=True).values, (0, 1))
            rest_q = q[:, [1, 3, 4]].sort(-1, descending=True).values
            return (weight * (matched + 0.5 * (rest_p - rest_q).abs().sum(-1))).sum()

        got = loss_and_gradient(hybrid, student, Mapped(teacher, self.ids), weight, unmatched_weight=0.5)
        torch.testing.assert_close(got, loss_and_gradient(formula, student))

    def test_identical_tokenizers_give_the_plain_kl(self):
        """P26."""
        student, teacher, weight = logits(3, 6), logits(3, 6, seed=1), torch.ones(3, dtype=F64)
        got = loss_and_gradient(hybrid, student, Mapped(teacher, torch.arange(6)), weight)
        torch.testing.assert_close(got, loss_and_gradient(forward_kl, student, Dense(teacher), weight))

    def test_needs_a_map(self):
        with pytest.raises(RecipeError, match="mapped to the student's ids"):
            hybrid(logits(1, 4), Dense(logits(1, 4)), ONE)


class TestSpanLikelihood:
    def test_by_hand(self):
        """A span of two student tokens of .5 and .4 (product .2) that the teacher spells with .5; a masked one beside it."""
        student = tensor([0.5, 0.4, 0.9, 0.1], dtype=F64).log().requires_grad_()
        teacher = tensor([0.5, 0.3], dtype=F64).log()
        loss = span_likelihood(student, tensor([0, 0, -1, 1]), teacher, tensor([2.0, 0.0], dtype=F64))
        loss.backward()
        by_hand = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
        assert loss.item() == pytest.approx(2 * by_hand, rel=1e-12)
        slope = 2 * (-0.5 + 0.5 * 0.2 / 0.8)  # dD/dlog q of the span, on each of its tokens
        torch.testing.assert_close(student.grad, tensor([slope, slope, 0.0, 0.0], dtype=F64))

    def test_only_the_product_counts(self):
        """P26: the probability of a merged span is the product over its tokens, however it was cut."""
        teacher = tensor([0.25], dtype=F64).log()
        one = span_likelihood(tensor([0.1], dtype=F64).log(), tensor([0]), teacher, ONE)
        three = span_likelihood(tensor([0.5, 0.4, 0.5], dtype=F64).log(), tensor([0, 0, 0]), teacher, ONE)
        assert one.item() == pytest.approx(three.item(), rel=1e-12)

    def test_zero_at_equality_and_finite_at_certainty(self):
        """P11, P19: nothing to learn where both agree; probability 1 and 1e-300 stay finite."""
        same = tensor([-0.7], dtype=F64).requires_grad_()
        loss = span_likelihood(same, tensor([0]), same.detach(), ONE)
        loss.backward()
        assert (loss.item(), same.grad.item()) == (0.0, 0.0)
        certain = tensor([0.0], dtype=F64).requires_grad_()
        loss = span_likelihood(certain, tensor([0]), tensor([-690.0], dtype=F64), ONE)
        loss.backward()
        assert math.isfinite(loss.item())
        assert math.isfinite(certain.grad.item())

    def test_gradcheck_with_temperature(self):
        student = tensor([-1.0, -0.2, -3.0], dtype=F64).requires_grad_()
        teacher, weight = tensor([-0.5, -2.0], dtype=F64), torch.ones(2, dtype=F64)
        assert torch.autograd.gradcheck(
            lambda s: span_likelihood(s, tensor([0, 0, 1]), teacher, weight, temperature=3.0), (student,)
        )

    def test_empty_mask(self):
        """P31."""
        student = tensor([-1.0], dtype=F64).requires_grad_()
        loss = span_likelihood(student, tensor([0]), tensor([-1.0], dtype=F64), torch.zeros(1, dtype=F64))
        loss.backward()
        assert (loss.item(), student.grad.item()) == (0.0, 0.0)
