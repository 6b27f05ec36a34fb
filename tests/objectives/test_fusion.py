"""R30 and survey 4.6: several teachers."""

from functools import partial

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense, TopK
from stillhouse.kernels.positions import source_of
from stillhouse.kernels.translated import Translated
from stillhouse.objectives import fusion
from stillhouse.objectives.divergence import forward_kl, reverse_kl
from stillhouse.testing.formulas import loss_and_gradient

F64 = torch.float64
N, V = 6, 5
SEQUENCE = tensor([0, 0, 0, 1, 1, 1])
TARGET = tensor([0, 1, 2, 3, 4, 0])
WEIGHT = tensor([0.0, 1.0, 1.0, 1.0, 2.0, 0.0], dtype=F64)


def logits(seed):
    return 2 * torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=F64)


STUDENT, A, B = logits(0), logits(1), logits(2)
TEACHERS = [Dense(A), Dense(B)]
HEARD = torch.ones(N, 2, dtype=torch.bool)


def of_text(*teachers):
    """[S, M]: the log-probabilities of both sequences."""
    said = [-torch.nn.functional.cross_entropy(teacher, TARGET, reduction="none") for teacher in teachers]
    return torch.stack([each.view(2, 3).sum(-1) for each in said], -1)


def test_mean_of_logits():
    """O3, R25: not the mean of probabilities."""
    got = loss_and_gradient(fusion.mean_of_logits, STUDENT, TEACHERS, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense((A + B) / 2), WEIGHT))


def test_mean_of_probabilities_and_any_divergence():
    mean = ((A.softmax(-1) + B.softmax(-1)) / 2).log()
    hot = partial(reverse_kl, temperature=2.0)
    got = loss_and_gradient(fusion.mean_of_probabilities, STUDENT, TEACHERS, HEARD, WEIGHT, divergence=hot)
    torch.testing.assert_close(got, loss_and_gradient(reverse_kl, STUDENT, Dense(mean), WEIGHT, temperature=2.0))


def test_minimum_cross_entropy_chooses_per_sequence():
    """R30: teacher A knows the first sequence, B the second; where the better one is not heard the other stands in."""
    likelier = tensor([[-3.0, -9.0], [-8.0, -2.0]], dtype=F64)
    told = TEACHERS, HEARD, likelier, SEQUENCE, WEIGHT
    got = loss_and_gradient(fusion.minimum_cross_entropy, STUDENT, *told)
    chosen = torch.cat([A[:3], B[3:]])
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(chosen), WEIGHT))
    heard = HEARD.clone()
    heard[2, 0] = False
    got = loss_and_gradient(fusion.minimum_cross_entropy, STUDENT, TEACHERS, heard, likelier, SEQUENCE, WEIGHT)
    chosen[2] = B[2]
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(chosen), WEIGHT))


def test_cross_entropy_weighted():
    """R30: shares are softmax(-mean loss) over the tokens of the sequence, of the teachers that are heard."""
    heard = HEARD.clone()
    heard[3, 1] = heard[5, 0] = heard[5, 1] = False
    costs = -of_text(A, B) / 3
    shares = (-costs)[SEQUENCE].softmax(-1)
    shares[3] = tensor([1.0, 0.0])
    mixture = (shares[:, :1] * A.softmax(-1) + shares[:, 1:] * B.softmax(-1)).log()
    got = loss_and_gradient(fusion.cross_entropy_weighted, STUDENT, TEACHERS, heard, of_text(A, B), SEQUENCE, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(mixture), WEIGHT))


def test_the_mean_is_of_those_that_are_heard():
    heard = HEARD.clone()
    heard[1, 0] = False
    mean = (A.softmax(-1) + B.softmax(-1)) / 2
    mean[1] = B[1].softmax(-1)
    got = loss_and_gradient(fusion.mean_of_probabilities, STUDENT, TEACHERS, heard, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(mean.log()), WEIGHT))


def test_another_vocabulary_spread_over_the_students():
    """By hand: the teacher's four tokens count for ids 2, 0 and 2 of the student, the last for none of its five."""
    told = Translated(tensor([[0.1, 0.2, 0.3, 0.4]], dtype=F64).log(), tensor([2, 0, 2, -1]), 5)
    rows = source_of(told).rows(tensor([0]), 5, F64)
    torch.testing.assert_close(rows.exp(), tensor([[0.2, 0.0, 0.4, 0.0, 0.0]], dtype=F64))
    beside = Dense(tensor([[0.2, 0.2, 0.2, 0.2, 0.2]], dtype=F64).log(), vocabulary=5)
    mean = tensor([[1 / 3, 0, 2 / 3, 0, 0]], dtype=F64) / 2 + 0.1  # what reads logits renormalises
    args = STUDENT[:1], [Dense(told, vocabulary=5), beside], torch.ones(1, 2), torch.ones(1, dtype=F64)
    got = loss_and_gradient(fusion.mean_of_probabilities, *args)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT[:1], Dense(mean.log()), args[-1]))


@pytest.mark.parametrize("function", [fusion.mean_of_logits, fusion.mean_of_probabilities])
def test_one_teacher_is_no_fusion(function):
    heard = (HEARD[:, :1],) if function is fusion.mean_of_probabilities else ()
    got = loss_and_gradient(function, STUDENT, [Dense(A)], *heard, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(A), WEIGHT))


def test_shapes_of_sequences():
    shaped = fusion.minimum_cross_entropy(
        STUDENT.view(2, 3, V),
        [Dense(A.view(2, 3, V)), Dense(B.view(2, 3, V))],
        HEARD,
        of_text(A, B),
        SEQUENCE.view(2, 3),
        WEIGHT.view(2, 3),
    )
    flat = fusion.minimum_cross_entropy(STUDENT, TEACHERS, HEARD, of_text(A, B), SEQUENCE, WEIGHT)
    assert shaped.item() == pytest.approx(flat.item(), rel=1e-12)


def test_refusals():
    kept = A.log_softmax(-1).topk(2)
    with pytest.raises(RecipeError, match="dense logits"):
        fusion.mean_of_logits(STUDENT, [Dense(A), TopK(kept.indices, kept.values)], WEIGHT)
    with pytest.raises(RecipeError, match="at least one teacher"):
        fusion.mean_of_logits(STUDENT, [], WEIGHT)
    with pytest.raises(RecipeError, match=r"\[4, 5\] columns"):
        fusion.mean_of_logits(STUDENT, [Dense(A), Dense(B[:, :4])], WEIGHT)


def test_padded_teachers_of_one_vocabulary():
    """P12: heads padded to 5 and 4 of 3 ids."""
    got = loss_and_gradient(
        fusion.mean_of_probabilities, STUDENT, [Dense(A, vocabulary=3), Dense(B[:, :4], vocabulary=3)], HEARD, WEIGHT
    )
    mean = ((A[:, :3].softmax(-1) + B[:, :3].softmax(-1)) / 2).log()
    expected = loss_and_gradient(forward_kl, STUDENT[:, :3], Dense(mean), WEIGHT)
    assert got[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    torch.testing.assert_close(got[1][:, :3], expected[1])


def test_empty_mask():
    """P31."""
    for function in (fusion.minimum_cross_entropy, fusion.cross_entropy_weighted):
        told = TEACHERS, torch.zeros(N, 2), of_text(A, B), SEQUENCE, torch.zeros(N, dtype=F64)
        loss, gradient = loss_and_gradient(function, STUDENT, *told)
        assert loss.item() == 0.0
        assert (gradient == 0).all()
