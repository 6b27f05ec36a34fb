"""R30 and survey 4.6: several teachers."""

from functools import partial

import pytest
import torch
from torch import tensor

from stillhouse.errors import RecipeError
from stillhouse.kernels.beliefs import Dense, TopK
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


def test_mean_of_logits():
    """O3, R25: not the mean of probabilities."""
    got = loss_and_gradient(fusion.mean_of_logits, STUDENT, TEACHERS, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense((A + B) / 2), WEIGHT))


def test_mean_of_probabilities_and_any_divergence():
    mean = ((A.softmax(-1) + B.softmax(-1)) / 2).log()
    hot = partial(reverse_kl, temperature=2.0)
    got = loss_and_gradient(fusion.mean_of_probabilities, STUDENT, TEACHERS, WEIGHT, divergence=hot)
    torch.testing.assert_close(got, loss_and_gradient(reverse_kl, STUDENT, Dense(mean), WEIGHT, temperature=2.0))


def test_minimum_cross_entropy_chooses_per_sequence():
    """R30: teacher A knows the first sequence, B the second; at masked positions nobody is asked."""
    a, b = A.clone(), B.clone()
    a[1, 1] += 9
    a[2, 2] += 9
    b[3, 3] += 9
    b[4, 4] += 9
    b[0, 0] = a[5, 0] = 1e4  # masked: would decide otherwise
    chosen = torch.cat([a[:3], b[3:]])
    got = loss_and_gradient(fusion.minimum_cross_entropy, STUDENT, [Dense(a), Dense(b)], TARGET, SEQUENCE, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(chosen), WEIGHT))


def test_cross_entropy_weighted():
    """Shares are softmax(-mean loss) over the counted tokens of the sequence."""
    costs = []
    for teacher in (A, B):
        loss = torch.nn.functional.cross_entropy(teacher, TARGET, reduction="none") * (WEIGHT != 0)
        costs.append(loss.view(2, 3).sum(-1) / 2)
    shares = (-torch.stack(costs, -1)).softmax(-1)[SEQUENCE]
    mixture = (shares[:, :1] * A.softmax(-1) + shares[:, 1:] * B.softmax(-1)).log()
    got = loss_and_gradient(fusion.cross_entropy_weighted, STUDENT, TEACHERS, TARGET, SEQUENCE, WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(mixture), WEIGHT))


@pytest.mark.parametrize("function", [fusion.mean_of_logits, fusion.mean_of_probabilities])
def test_one_teacher_is_no_fusion(function):
    got = loss_and_gradient(function, STUDENT, [Dense(A)], WEIGHT)
    torch.testing.assert_close(got, loss_and_gradient(forward_kl, STUDENT, Dense(A), WEIGHT))


def test_shapes_of_sequences():
    shaped = fusion.minimum_cross_entropy(
        STUDENT.view(2, 3, V),
        [Dense(A.view(2, 3, V)), Dense(B.view(2, 3, V))],
        TARGET.view(2, 3),
        SEQUENCE.view(2, 3),
        WEIGHT.view(2, 3),
    )
    flat = fusion.minimum_cross_entropy(STUDENT, TEACHERS, TARGET, SEQUENCE, WEIGHT)
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
        fusion.mean_of_probabilities, STUDENT, [Dense(A, vocabulary=3), Dense(B[:, :4], vocabulary=3)], WEIGHT
    )
    mean = ((A[:, :3].softmax(-1) + B[:, :3].softmax(-1)) / 2).log()
    expected = loss_and_gradient(forward_kl, STUDENT[:, :3], Dense(mean), WEIGHT)
    assert got[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    torch.testing.assert_close(got[1][:, :3], expected[1])


def test_empty_mask():
    """P31."""
    for function in (fusion.minimum_cross_entropy, fusion.cross_entropy_weighted):
        loss, gradient = loss_and_gradient(function, STUDENT, TEACHERS, TARGET, SEQUENCE, torch.zeros(N, dtype=F64))
        assert loss.item() == 0.0
        assert (gradient == 0).all()
