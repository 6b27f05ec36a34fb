"""A generative reward model (R42, RLMEC): what it learns from, what it is shown, and the probabilities it gives."""

import pytest
import torch
from train_helpers import WhiteBox, make_examples, make_model, make_tokenizer

from stillhouse.elicit.preferences import rewriting
from stillhouse.elicit.revising import rewriting_prompt
from stillhouse.errors import RunFailed
from stillhouse.graders import Grade
from stillhouse.objectives import reinforcement
from stillhouse.records import Example, user
from stillhouse.render import render
from stillhouse.train.rollout import Rollouts
from stillhouse.train.student import Student
from stillhouse.train.trainer import Term, train

CONTEXT = 512


@pytest.fixture
def rewriter(tokenizer):
    return WhiteBox(make_model(tokenizer, seed=1, max_position_embeddings=CONTEXT), tokenizer)


def vowels(responses, references):
    return [Grade(float(len(each) % 2), "counted") for each in responses]


def test_lessons_of_rewriting_show_the_answer_and_learn_its_correction():
    """R42: a wrong answer is mended; one that nobody corrected is left as it is."""
    wrong = Example("a", user("2 and 2?"), "It is 4.", columns={"was": "It is 5."})
    right = Example("b", user("2 and 3?"), "It is 5.")
    mended, left = rewriting([wrong, right])
    assert (mended.prompt, mended.response) == (rewriting_prompt(wrong.prompt, "It is 5."), "It is 4.")
    assert (left.prompt, left.response) == (rewriting_prompt(right.prompt, "It is 5."), "It is 5.")
    assert "It is 5." in mended.prompt[0].content and mended.origin.parents == ("a",)


def test_each_token_earns_what_the_model_that_rewrites_would_leave_of_it(student, rewriter, tokenizer, tmp_path):
    """R42: the trainer's array is a plain forward pass of that model over the answer, shown and asked to be written again."""
    seen = []

    def spy(student_logprobs_N, judge_probabilities_N, target_ids_N, sequence_N, weight_N):
        seen.append((judge_probabilities_N, target_ids_N, sequence_N))
        return (weight_N * student_logprobs_N).sum()

    examples = make_examples(4, seed=3, longest=9)
    term = Term("spy", spy, "rollouts", teacher="t")
    rollouts = Rollouts("x", max_new_tokens=7, samples=2, reward=vowels)
    arguments = {"max_steps": 1, "learning_rate": 0.0, "per_device_train_batch_size": 4}
    data, told = {"x": examples}, {"teachers": {"t": rewriter}, "arguments": arguments, "rollouts": rollouts}
    train(student, [term], data, out=tmp_path, seed=0, **told)
    ((told_N, ids_N, sequence_N),) = seen
    found = 0
    for number in range(int(sequence_N.max()) + 1):
        ids = ids_N[sequence_N == number].tolist()
        text = tokenizer.decode(ids, skip_special_tokens=True)
        told = told_N[sequence_N == number]
        # which prompt it answers is not in the arrays: one of the four gives exactly these numbers
        plain = [by_hand(rewriter, tokenizer, one, text, ids) for one in examples]
        found += any(torch.allclose(told, each, atol=1e-5) for each in plain)
    assert found == int(sequence_N.max()) + 1 == 8


def by_hand(rewriter, tokenizer, one, text, ids):
    whole = render(tokenizer, rewriting_prompt(one.prompt, text), text)
    row = [*whole.ids[: whole.start], *ids]
    with torch.no_grad():
        probabilities = rewriter.model(torch.tensor([row])).logits[0].softmax(-1)
    return torch.stack([probabilities[whole.start - 1 + at, token] for at, token in enumerate(ids)])


def test_an_answer_that_cannot_be_shown_twice_stops_the_training(student, tmp_path):
    tokenizer = make_tokenizer()
    small = WhiteBox(make_model(tokenizer, seed=1), tokenizer)
    term = Term("rlmec", reinforcement.rlmec, "rollouts", teacher="t")
    with pytest.raises(RunFailed, match="longer context"):
        train(
            Student(student.model, tokenizer), [term], {"x": make_examples(2)}, teachers={"t": small}, out=tmp_path, seed=0,
            arguments={"max_steps": 1}, rollouts=Rollouts("x", max_new_tokens=5, samples=2, reward=vowels),
        )  # fmt: skip
