"""The one loop: what is learned, what it is divided by, and that it goes on where it stopped."""

import copy
import math

import pytest
import torch

from stillhouse.errors import RecipeError, RunFailed
from stillhouse.objectives import divergence, reinforcement, supervised
from stillhouse.train.student import Student
from stillhouse.train.trainer import Rollouts, Term, known_arguments, train

CROSS_ENTROPY = Term("supervised.cross_entropy", supervised.cross_entropy, "x")
FORWARD_KL = Term("divergence.forward_kl", divergence.forward_kl, "x")
ONLINE_KL = Term("divergence.forward_kl", divergence.forward_kl, "x", teacher="t")


def run(student, terms, data, out, *, teachers=None, seed=0, **more):
    arguments = {"max_steps": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
    arguments |= more.pop("arguments", {})
    return train(student, terms, data, teachers=teachers or {}, arguments=arguments, out=out, seed=seed, **more)


def weights(student):
    return {name: parameter.detach().clone() for name, parameter in student.model.named_parameters()}


def distance(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def twin(student):
    return Student(copy.deepcopy(student.model), student.tokenizer)


def test_the_logged_loss_is_the_mean_negative_log_likelihood_of_the_answers(student, tools, tmp_path):
    from stillhouse.render import render

    examples = tools.examples(4)
    total, count = 0.0, 0
    for example in examples:
        whole = render(student.tokenizer, example.prompt, example.response)
        with torch.no_grad():
            logprobs = torch.log_softmax(student.model(torch.tensor([whole.ids])).logits[0], -1)
        total -= sum(float(logprobs[at - 1, whole.ids[at]]) for at in range(whole.start, len(whole.ids)))
        count += len(whole.response)
    done = run(student, [CROSS_ENTROPY], {"x": examples}, tmp_path, arguments={"max_steps": 1})
    assert done.history[0]["loss"] == pytest.approx(total / count, rel=1e-5)
    assert done.target_tokens == count


@pytest.mark.parametrize("term", [CROSS_ENTROPY, ONLINE_KL])
def test_a_student_learns(term, student, teacher, tools, tmp_path):
    done = run(
        student, [term], {"x": tools.examples(8)}, tmp_path, teachers={"t": teacher}, arguments={"max_steps": 40}
    )
    assert done.history[-1]["loss"] < 0.7 * done.history[0]["loss"]
    assert done.steps == 40


def test_stored_log_probs_of_the_whole_vocabulary_teach_as_the_teacher_itself(student, teacher, tools, tmp_path):
    """One batch holds all, as ids of Example and TopLogprobs differ and so do their orders."""
    examples = tools.examples(6)
    believed = [tools.believe(example, teacher, k=len(student.tokenizer)) for example in examples]
    one_batch = {"per_device_train_batch_size": 6}
    first, second = twin(student), twin(student)
    stored = run(first, [FORWARD_KL], {"x": believed}, tmp_path / "a", arguments=one_batch)
    online = run(second, [ONLINE_KL], {"x": examples}, tmp_path / "b", teachers={"t": teacher}, arguments=one_batch)
    assert stored.history[0]["loss"] > 0.1
    assert stored.history[0]["loss"] == pytest.approx(online.history[0]["loss"], rel=1e-4)
    assert stored.history[0]["grad_norm"] == pytest.approx(online.history[0]["grad_norm"], rel=1e-4)


def test_a_teacher_equal_to_the_student_has_nothing_to_teach(student, tools, tmp_path):
    """P11 through the whole trainer: loss(p, p) is 0, and no weight moves."""
    before = weights(student)
    same = tools.white_box(copy.deepcopy(student.model), student.tokenizer)
    done = run(
        student, [ONLINE_KL], {"x": tools.examples(8)}, tmp_path, teachers={"t": same}, arguments={"optim": "sgd"}
    )
    assert done.history[0]["loss"] == pytest.approx(0, abs=1e-6)
    assert distance(before, weights(student)) < 1e-6


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("rollouts", [None, Rollouts("x", max_new_tokens=7)])
def test_a_step_does_not_depend_on_how_its_examples_are_cut(packing, rollouts, student, teacher, tools, tmp_path):
    """P06, P07, P08: 1x8, 2x4 and 8x1 give the same gradients, on given and on own answers."""
    examples = tools.examples(8)
    term = Term("divergence.forward_kl", divergence.forward_kl, "rollouts" if rollouts else "x", teacher="t")
    ends = []
    for size in (8, 4, 1):
        own = twin(student)
        done = run(
            own, [term], {"x": examples}, tmp_path / str(size), teachers={"t": teacher}, packing=packing,
            rollouts=rollouts,
            arguments={"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size, "max_steps": 1,
                       "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"},
        )  # fmt: skip
        ends.append((weights(own), done.history[0]["grad_norm"], done.history[0]["loss"]))
    assert distance(ends[0][0], weights(student)) > 1e-3
    for end in ends[1:]:
        assert distance(ends[0][0], end[0]) < 2e-5
        assert end[1:] == pytest.approx(ends[0][1:], rel=1e-4)


def test_terms_add_up_with_their_weights(student, teacher, tools, tmp_path):
    half = [Term(t.name, t.objective, t.on, 0.5, teacher=t.teacher) for t in (CROSS_ENTROPY, ONLINE_KL)]
    done = run(student, half, {"x": tools.examples(4)}, tmp_path, teachers={"t": teacher})
    row = done.history[0]
    parts = row["loss/supervised.cross_entropy on x"], row["loss/divergence.forward_kl on x"]
    assert row["loss"] == pytest.approx(0.5 * parts[0] + 0.5 * parts[1])
    assert parts[0] != pytest.approx(parts[1])


def test_two_branches_in_one_batch_learn_as_their_own(student, tools, tmp_path):
    """Each term is divided by the positions of its own branch."""
    first, second = tools.examples(4, seed=1), tools.examples(4, seed=2, longest=60)
    terms = [CROSS_ENTROPY, Term("supervised.cross_entropy", supervised.cross_entropy, "y")]
    both = run(twin(student), terms, {"x": first, "y": second}, tmp_path / "both")
    alone = [
        run(twin(student), [CROSS_ENTROPY], {"x": data}, tmp_path / name)
        for name, data in (("x", first), ("y", second))
    ]
    row = both.history[0]
    assert row["loss/supervised.cross_entropy on x"] == pytest.approx(alone[0].history[0]["loss"], rel=1e-5)
    assert row["loss/supervised.cross_entropy on y"] == pytest.approx(alone[1].history[0]["loss"], rel=1e-5)


def test_arms_see_the_same_batches_in_the_same_order(student, teacher, tools, tmp_path):
    """P24: what another branch or objective adds does not change the order of a branch."""
    examples, more = tools.examples(10), tools.examples(30, seed=5)
    one = run(
        twin(student),
        [CROSS_ENTROPY],
        {"x": examples},
        tmp_path / "a",
        arguments={"learning_rate": 0.0, "max_steps": 7},
    )
    two = run(
        twin(student),
        [Term("divergence.forward_kl", divergence.forward_kl, "y", teacher="t"), CROSS_ENTROPY],
        {"x": list(reversed(examples)), "y": more}, tmp_path / "b", teachers={"t": teacher},
        arguments={"learning_rate": 0.0, "max_steps": 7},
    )  # fmt: skip
    key = "loss/supervised.cross_entropy on x"
    assert [row[key] for row in two.history] == pytest.approx([row[key] for row in one.history], rel=1e-5)
    assert len({round(row[key], 5) for row in one.history}) > 3


def test_an_epoch_has_each_record_once(student, tools, tmp_path):
    examples = tools.examples(10)
    done = run(student, [CROSS_ENTROPY], {"x": examples}, tmp_path, arguments={"max_steps": -1, "num_train_epochs": 2})
    assert done.steps == 6
    assert done.target_tokens == 2 * sum(len(example.response) + 1 for example in examples)


def test_weights_of_examples_come_from_a_named_column(student, tools, tmp_path):
    """P31: weight 0 everywhere is a loss of 0 and no change, not nan."""
    from dataclasses import replace

    examples = [replace(example, columns={"w": 0.0}) for example in tools.examples(4)]
    before = weights(student)
    term = Term("supervised.cross_entropy", supervised.cross_entropy, "x", weight_column="w")
    done = run(student, [term], {"x": examples}, tmp_path)
    assert done.history[0]["loss"] == 0
    assert done.history[0]["grad_norm"] == 0
    assert distance(before, weights(student)) == 0
    with pytest.raises(RecipeError, match="no column 'w'"):
        run(student, [term], {"x": tools.examples(4)}, tmp_path / "b")


def test_a_loss_that_is_not_finite_ends_the_run_by_name(student, tools, tmp_path):
    def broken(student_logits_NV, weight_N):
        return student_logits_NV.sum() * math.inf

    examples = {"x": tools.examples(8)}
    run(twin(student), [CROSS_ENTROPY], examples, tmp_path, arguments={"save_steps": 1})
    with pytest.raises(RunFailed, match=r"the loss of mine\.broken on x is not finite at step 1"):
        run(student, [Term("mine.broken", broken, "x")], examples, tmp_path)
    assert (tmp_path / "checkpoint-2" / "model.safetensors").is_file()


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_applied(student, tools, tmp_path):
    def steep(student_logits_NV, weight_N):
        return (student_logits_NV * 0).sum().sqrt()

    before = weights(student)
    with pytest.raises(RunFailed, match="the gradient is not finite at step 1"):
        run(student, [Term("mine.steep", steep, "x")], {"x": tools.examples(4)}, tmp_path)
    assert distance(before, weights(student)) == 0


class Bias(torch.nn.Module):
    """An objective with a parameter: cross-entropy of logits plus a learned bias."""

    def __init__(self, size):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(size))

    def forward(self, student_logits_NV, target_ids_N, weight_N):
        logprobs = torch.log_softmax(student_logits_NV + self.bias, -1)
        return -(logprobs.gather(-1, target_ids_N[:, None])[:, 0] * weight_N).sum()


def test_the_parameters_of_an_objective_are_trained_saved_and_restored(student, tools, tmp_path):
    examples = {"x": tools.examples(8)}
    straight, bias = twin(student), Bias(len(student.tokenizer))
    run(straight, [Term("mine.bias", bias, "x")], examples, tmp_path / "a", arguments={"max_steps": 4})
    assert float(bias.bias.detach().abs().max()) > 1e-3
    assert not any("objective" in name for name in straight.model.state_dict())
    stopped, other = twin(student), Bias(len(student.tokenizer))
    interrupted(stopped, [Term("mine.bias", other, "x")], examples, tmp_path / "b", at=2, steps=4)
    again, third = twin(student), Bias(len(student.tokenizer))
    run(again, [Term("mine.bias", third, "x")], examples, tmp_path / "b", arguments={"max_steps": 4, "save_steps": 1})
    assert torch.equal(bias.bias, third.bias)
    assert distance(weights(straight), weights(again)) == 0


class Stop(Exception):
    pass


def interrupted(student, terms, data, out, *, at, steps, **more):
    """Trains until the row of step `at`, whose checkpoint is written after it, so the one before is the last."""

    def stop(row):
        if row["step"] == at + 1:
            raise Stop

    with pytest.raises(Stop):
        run(student, terms, data, out, arguments={"max_steps": steps, "save_steps": 1}, on_progress=stop, **more)


@pytest.mark.parametrize("rollouts", [None, Rollouts("x", fraction=0.5, max_new_tokens=5)])
def test_a_stopped_training_goes_on_to_the_same_weights(rollouts, teacher, tokenizer, tools, tmp_path):
    """To the bit, with dropout drawing random numbers in between, and with the same history."""
    start = Student(tools.model(tokenizer, attention_dropout=0.3), tokenizer)
    terms = [CROSS_ENTROPY, ONLINE_KL]
    if rollouts:
        terms.append(Term("divergence.reverse_kl", divergence.reverse_kl, "rollouts", teacher="t"))
    more = {"teachers": {"t": teacher}, "rollouts": rollouts}
    data = {"x": tools.examples(10)}
    straight = twin(start)
    whole = run(straight, terms, data, tmp_path / "a", arguments={"max_steps": 6, "logging_steps": 1}, **more)
    interrupted(twin(start), terms, data, tmp_path / "b", at=3, steps=6, **more)
    again = twin(start)
    rest = run(again, terms, data, tmp_path / "b", arguments={"max_steps": 6, "save_steps": 1}, **more)
    assert distance(weights(straight), weights(again)) == 0
    plain = [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rest.history] == plain
    assert rest.input_tokens == whole.input_tokens


def test_a_finished_training_called_again_gives_its_weights_without_a_step(student, tools, tmp_path):
    data = {"x": tools.examples(6)}
    first, second = twin(student), twin(student)
    run(first, [CROSS_ENTROPY], data, tmp_path)
    rows = []
    done = run(second, [CROSS_ENTROPY], data, tmp_path, on_progress=rows.append)
    assert rows == []
    assert done.steps == 2
    assert len(done.history) == 2
    assert distance(weights(first), weights(second)) == 0


def test_other_inputs_do_not_go_on_from_an_old_checkpoint(student, tools, tmp_path):
    run(twin(student), [CROSS_ENTROPY], {"x": tools.examples(6)}, tmp_path)
    rows = []
    run(student, [CROSS_ENTROPY], {"x": tools.examples(6, seed=9)}, tmp_path, on_progress=rows.append)
    assert [row["step"] for row in rows] == [1, 2]


def test_what_does_not_fit_is_left_out_with_its_reason(student, tools, tmp_path):
    from dataclasses import replace

    long = replace(tools.examples(1, seed=3)[0], response="a" * 200)
    done = run(student, [CROSS_ENTROPY], {"x": [*tools.examples(4), long]}, tmp_path)
    assert [(lost.parent, lost.reason) for lost in done.left_out] == [(long.id, "too_long")]
    with pytest.raises(RecipeError, match="none of its 1 records fits 96 tokens"):
        run(student, [CROSS_ENTROPY], {"x": [long]}, tmp_path)


def test_unknown_settings_are_refused_by_their_nearest_names(student, tools, tmp_path):
    with pytest.raises(RecipeError, match=r"no setting 'learnin_rate'; did you mean 'learning_rate'"):
        run(student, [CROSS_ENTROPY], {"x": tools.examples(2)}, tmp_path, arguments={"learnin_rate": 1})
    with pytest.raises(RecipeError, match=r"learning_rate: 'fast' is not a number"):
        run(student, [CROSS_ENTROPY], {"x": tools.examples(2)}, tmp_path, arguments={"learning_rate": "fast"})
    assert "warmup_steps" in known_arguments()
    assert "output_dir" not in known_arguments()


def test_numbers_that_yaml_reads_as_text_are_numbers(student, tools, tmp_path):
    done = run(student, [CROSS_ENTROPY], {"x": tools.examples(2)}, tmp_path, arguments={"learning_rate": "1e-3"})
    assert done.history[0]["learning_rate"] == pytest.approx(1e-3)


def test_what_nobody_provides_is_refused_in_one_sentence(student, teacher, tools, tmp_path):
    data = {"x": tools.examples(2)}
    with pytest.raises(RecipeError, match="needs teacher_beliefs, which Example records do not give"):
        run(student, [FORWARD_KL], data, tmp_path)
    with pytest.raises(RecipeError, match="reads a branch 'y'; known: x"):
        run(student, [Term("a.b", supervised.cross_entropy, "y")], data, tmp_path)
    with pytest.raises(RecipeError, match="names a teacher 't'; known: reference"):
        run(student, [ONLINE_KL], data, tmp_path)
    with pytest.raises(RecipeError, match="cannot show its logits"):
        run(student, [ONLINE_KL], data, tmp_path, teachers={"t": object()})
    with pytest.raises(RecipeError, match="there are none; say which prompts"):
        run(
            student,
            [Term("a.b", divergence.reverse_kl, "rollouts", teacher="t")],
            data,
            tmp_path,
            teachers={"t": teacher},
        )
    with pytest.raises(RecipeError, match="there are no objectives"):
        run(student, [], data, tmp_path)


def test_what_needs_the_same_tokens_is_refused_without_them(student, teacher, tools, tmp_path):
    other = tools.tokenizer(more="AB")
    box = tools.white_box(tools.model(other, seed=1), other)
    data = {"x": tools.examples(2)}
    sampled = Term("reinforcement.sampled_reverse_kl", reinforcement.sampled_reverse_kl, "rollouts", teacher="t")
    with pytest.raises(RecipeError, match="different tokenizers"):
        run(student, [sampled], data, tmp_path, teachers={"t": box}, rollouts=Rollouts("x", max_new_tokens=4))
    believed = [tools.believe(example, box, k=4) for example in data["x"]]
    with pytest.raises(RecipeError, match="belong to another tokenizer"):
        run(student, [FORWARD_KL], {"x": believed}, tmp_path)


def test_log_probs_of_other_tokens_are_refused(student, teacher, tools, tmp_path):
    """P25: every stored token id is compared with the student's own."""
    from dataclasses import replace

    believed = tools.believe(tools.examples(1)[0], teacher, k=4)
    wrong = replace(believed, token_ids_T=believed.token_ids_T[::-1].copy())
    with pytest.raises(RecipeError, match="log-probabilities for other tokens"):
        run(student, [FORWARD_KL], {"x": [wrong]}, tmp_path)


def test_the_teacher_reads_the_prompt_in_its_own_template(student, teacher, tools, tmp_path):
    """P05: the same response tokens, each model after its own rendering of the prompt; also when rows are shared."""
    template = student.tokenizer.chat_template.replace("<s>", "<s><|system|>be good<|end|>\n")
    other = tools.tokenizer(template)
    examples = tools.examples(5)
    believed = [tools.believe(e, tools.white_box(teacher.model, other), k=len(other)) for e in examples]
    one_batch = {"per_device_train_batch_size": 5}
    stored = run(twin(student), [FORWARD_KL], {"x": believed}, tmp_path / "a", arguments=one_batch)
    box = tools.white_box(teacher.model, other)
    for packing in (True, False):
        online = run(
            twin(student), [ONLINE_KL], {"x": examples}, tmp_path / f"b{packing}", teachers={"t": box},
            packing=packing, arguments=one_batch,
        )  # fmt: skip
        assert online.history[0]["loss"] == pytest.approx(stored.history[0]["loss"], rel=1e-4)
    plain = run(
        twin(student), [ONLINE_KL], {"x": examples}, tmp_path / "c", teachers={"t": teacher}, arguments=one_batch
    )
    assert plain.history[0]["loss"] != pytest.approx(stored.history[0]["loss"], rel=1e-3)


def test_a_padded_head_changes_nothing(student, teacher, tools, tokenizer, tmp_path):
    """P12: ids that the tokenizer cannot give do not count, whatever the teacher's head says there."""
    wide = tools.model(tokenizer, seed=1, vocab_size=len(tokenizer) + 5)
    state = teacher.model.state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], torch.randn(5, 16)])
    wide.load_state_dict(state)
    data = {"x": tools.examples(4)}
    narrow_loss = run(twin(student), [ONLINE_KL], data, tmp_path / "a", teachers={"t": teacher}).history[0]["loss"]
    box = tools.white_box(wide, tokenizer)
    wide_loss = run(twin(student), [ONLINE_KL], data, tmp_path / "b", teachers={"t": box}).history[0]["loss"]
    assert wide_loss == pytest.approx(narrow_loss, rel=1e-5)


@pytest.mark.parametrize("objective", [divergence.forward_kl, divergence.reverse_kl, divergence.universal_logit])
def test_heads_of_different_widths_over_one_tokenizer(objective, student, teacher, tools, tokenizer, tmp_path):
    """P12, as Qwen2.5 has it (heads of 151,936 and 152,064 rows): the padding of neither side counts, nor is it trained."""

    def padded(model, rows):
        wide = tools.model(tokenizer, seed=1, vocab_size=len(tokenizer) + rows)
        state = model.state_dict()
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            state[name] = torch.cat([state[name], torch.randn(rows, 16, generator=torch.Generator().manual_seed(rows))])
        wide.load_state_dict(state)
        return wide

    term = Term("d", objective, "x", teacher="t")
    arguments = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
    losses = []
    for name, mine, theirs in (("same", 0, 0), ("wide", 3, 11)):
        own = Student(padded(student.model, mine), tokenizer)
        box = tools.white_box(padded(teacher.model, theirs), tokenizer)
        done = run(own, [term], {"x": tools.examples(4)}, tmp_path / name, teachers={"t": box}, arguments=arguments)
        losses.append([row["loss"] for row in done.history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_students_flags_are_as_before(student, tools, tmp_path):
    """P30."""
    student.model.config.use_cache = True
    run(student, [CROSS_ENTROPY], {"x": tools.examples(2)}, tmp_path)
    assert student.model.config.use_cache is True
    assert not student.model.training


def test_lambda_zero_never_samples_and_one_always_does(student, teacher, tools, tmp_path, monkeypatch):
    """GKD's two ends (R27, J1); the lambda of 0 is plain supervised distillation."""
    from stillhouse.train import rollout

    asked = []
    real = rollout.generate_sorted

    def counted(model, prompts, **how):
        asked.append(len(prompts))
        return real(model, prompts, **how)

    monkeypatch.setattr(rollout, "generate_sorted", counted)
    data = {"x": tools.examples(8)}
    term = Term("divergence.forward_kl", divergence.forward_kl, "rollouts", teacher="t")
    more = {"teachers": {"t": teacher}}
    never = run(twin(student), [term], data, tmp_path / "0", rollouts=Rollouts("x", fraction=0.0), **more)
    assert sum(asked) == 0
    off_policy = run(twin(student), [ONLINE_KL], data, tmp_path / "off", **more)
    assert [r["loss"] for r in never.history] == pytest.approx([r["loss"] for r in off_policy.history])
    run(twin(student), [term], data, tmp_path / "1", rollouts=Rollouts("x", max_new_tokens=4), **more)
    assert asked[-2:] == [4, 4]


def test_own_answers_are_never_learned_as_if_they_were_right(student, teacher, tools, tmp_path):
    """P23: cross-entropy counts only the answers that came with the records."""
    data = {"x": tools.examples(8)}
    term = Term("supervised.cross_entropy", supervised.cross_entropy, "rollouts")
    with pytest.raises(RecipeError, match="would only repeat the student's own answers"):
        run(student, [term], data, tmp_path, rollouts=Rollouts("x"))
    before = weights(student)
    done = run(student, [term], data, tmp_path, rollouts=Rollouts("x", fraction=0.999999), arguments={"optim": "sgd"})
    assert done.history[0]["loss"] == 0
    assert distance(before, weights(student)) == 0


def test_rollouts_answer_seeds_that_have_no_answer(student, teacher, tools, tmp_path):
    from stillhouse.records import Seed

    seeds = [Seed(e.id, e.prompt) for e in tools.examples(8)]
    term = Term("divergence.reverse_kl", divergence.reverse_kl, "rollouts", teacher="t")
    done = run(
        student, [term], {"x": seeds}, tmp_path, teachers={"t": teacher}, rollouts=Rollouts("x", max_new_tokens=6),
        arguments={"max_steps": 30},
    )  # fmt: skip
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert done.target_tokens <= 30 * 4 * 6
    with pytest.raises(RecipeError, match="Seed records, which have no answer"):
        run(student, [CROSS_ENTROPY], {"x": seeds}, tmp_path / "b")
