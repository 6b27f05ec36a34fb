"""What objectives get beyond logits and targets: log-probabilities, references, hidden states, rankings, rewards."""

import copy
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, LlamaConfig

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.objectives import divergence, fusion, minillm, ranking, reinforcement, similarity, supervised
from stillhouse.records import Ranking
from stillhouse.render import render
from stillhouse.train import fitting, trainer
from stillhouse.train.forward import has_plain_head, packs_sequences, show
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Rollouts, Term, train


def run(student, terms, data, out, *, teachers=None, seed=0, **more):
    arguments = {"max_steps": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
    arguments |= more.pop("arguments", {})
    return train(student, terms, data, teachers=teachers or {}, arguments=arguments, out=out, seed=seed, **more)


def twin(student):
    return Student(copy.deepcopy(student.model), student.tokenizer)


def logprob(model, tokenizer, prompt, response):
    whole = render(tokenizer, prompt, response)
    with torch.no_grad():
        logprobs = torch.log_softmax(model(torch.tensor([whole.ids])).logits[0], -1)
    return [float(logprobs[at - 1, whole.ids[at]]) for at in range(whole.start, len(whole.ids))]


@pytest.fixture
def rankings(tools):
    first, second, third = (tools.examples(4, seed=seed) for seed in (1, 2, 3))
    return [Ranking(a.id, a.prompt, (a.response, b.response, c.response)) for a, b, c in zip(first, second, third)]


def test_dpo_is_its_formula_on_summed_log_probs(student, teacher, tools, rankings, tmp_path):
    """Eq. 14, with another model as the reference; a group counts once."""
    expected = 0.0
    for r in rankings:
        ratios = [
            sum(logprob(student.model, student.tokenizer, r.prompt, text))
            - sum(logprob(teacher.model, student.tokenizer, r.prompt, text))
            for text in r.responses
        ]
        pairs = [(0, 1), (0, 2), (1, 2)]
        expected += sum(math.log1p(math.exp(-0.1 * (ratios[w] - ratios[l]))) for w, l in pairs) / len(pairs)
    term = Term("ranking.dpo", ranking.dpo, "x")
    done = run(twin(student), [term], {"x": rankings}, tmp_path, reference=teacher.model)
    assert done.history[0]["loss"] == pytest.approx(expected / len(rankings), rel=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_is_the_student_before_training(lora, student, rankings, tmp_path):
    """A loss of log 2 at the first step, and less when the student has moved away from the reference."""
    save_student(student, tmp_path / "base")
    own = load_student(tmp_path / "base", lora={"rank": 4} if lora else None)
    done = run(
        own, [Term("ranking.dpo", ranking.dpo, "x")], {"x": rankings}, tmp_path / "o", arguments={"max_steps": 15}
    )
    assert done.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert done.history[-1]["loss"] < 0.9 * math.log(2)


def test_a_ranking_without_scores_is_in_order_and_scores_count_where_there_are_any(student, rankings, tmp_path):
    from dataclasses import replace

    term = Term("ranking.simpo", ranking.simpo, "x")
    plain = run(twin(student), [term], {"x": rankings}, tmp_path / "a").history[0]["loss"]
    scored = [replace(r, scores=(3.0, 2.0, 1.0)) for r in rankings]
    assert run(twin(student), [term], {"x": scored}, tmp_path / "b").history[0]["loss"] == pytest.approx(plain)
    turned = [replace(r, responses=r.responses[::-1], scores=(1.0, 2.0, 3.0)) for r in rankings]
    assert run(twin(student), [term], {"x": turned}, tmp_path / "c").history[0]["loss"] == pytest.approx(
        plain, rel=1e-5
    )
    worse = [replace(r, scores=(1.0, 2.0, 3.0)) for r in rankings]
    assert run(twin(student), [term], {"x": worse}, tmp_path / "d").history[0]["loss"] != pytest.approx(plain, rel=1e-3)


def test_rankings_do_not_depend_on_how_they_are_cut(student, rankings, tmp_path):
    """P06 for sums over groups."""
    ends = []
    for size in (4, 2, 1):
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "max_steps": 1}
        done = run(
            twin(student), [Term("ranking.simpo", ranking.simpo, "x")], {"x": rankings}, tmp_path / str(size),
            arguments=arguments,
        )  # fmt: skip
        ends.append((done.history[0]["loss"], done.history[0]["grad_norm"]))
    assert ends[1] == pytest.approx(ends[0], rel=1e-4)
    assert ends[2] == pytest.approx(ends[0], rel=1e-4)


def test_objectives_of_tokens_do_not_read_rankings(student, rankings, tmp_path):
    with pytest.raises(RecipeError, match="needs student_logits_NV, target_ids_N, which Ranking records do not give"):
        run(student, [Term("supervised.cross_entropy", supervised.cross_entropy, "x")], {"x": rankings}, tmp_path)


def test_hidden_states_are_compared_at_the_targets(student, teacher, tools, tmp_path):
    examples = tools.examples(4)
    total, count = 0.0, 0
    for example in examples:
        whole = render(student.tokenizer, example.prompt, example.response)
        ids = torch.tensor([whole.ids])
        with torch.no_grad():
            mine = student.model(ids, output_hidden_states=True).hidden_states[1][0, whole.start - 1 : -1]
            theirs = teacher.model(ids, output_hidden_states=True).hidden_states[-1][0, whole.start - 1 : -1]
        total += float((mine - theirs).square().mean(-1).sum())
        count += len(mine)
    term = Term("similarity.l2", similarity.l2, "x", teacher="t", layers=(1, -1))
    done = run(twin(student), [term], {"x": examples}, tmp_path / "a", teachers={"t": teacher})
    assert done.history[0]["loss"] == pytest.approx(total / count, rel=1e-4)
    same = tools.white_box(copy.deepcopy(student.model), student.tokenizer)
    term = Term("similarity.l2", similarity.l2, "x", teacher="t", layers=(1, 1))
    done = run(twin(student), [term], {"x": examples}, tmp_path / "b", teachers={"t": same})
    assert done.history[0]["loss"] == pytest.approx(0, abs=1e-10)


def test_hidden_states_of_a_teacher_with_another_template_keep_their_places(student, teacher, tools, tmp_path):
    other = tools.tokenizer(student.tokenizer.chat_template.replace("<s>", "<s><|system|>hello\n"))
    same = tools.white_box(student.model, student.tokenizer)
    aligned = run(
        twin(student), [Term("similarity.cosine", similarity.cosine, "x", teacher="t", layers=(0, 0))],
        {"x": tools.examples(4)}, tmp_path, teachers={"t": tools.white_box(student.model, other)},
    )  # fmt: skip
    assert same.model is student.model
    # embeddings depend on the token alone, the last of the prompt included: the order is right or this is not 0
    assert aligned.history[0]["loss"] == pytest.approx(0, abs=1e-6)


def test_a_projection_is_learned_with_the_student(student, tools, tokenizer, tmp_path):
    wide = tools.white_box(tools.model(tokenizer, seed=1, hidden_size=24), tokenizer)
    projection = similarity.projected(student_width=16, teacher_width=24)
    before = projection.map.weight.detach().clone()
    term = Term("similarity.projected", projection, "x", teacher="t")
    done = run(student, [term], {"x": tools.examples(4)}, tmp_path, teachers={"t": wide}, arguments={"max_steps": 20})
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert not torch.allclose(before, projection.map.weight, atol=1e-2)


def test_one_number_for_a_batch_cannot_be_accumulated(student, teacher, tools, tmp_path):
    term = Term("similarity.cka", similarity.cka, "x", teacher="t")
    data, teachers = {"x": tools.examples(4)}, {"t": teacher}
    assert 0 < run(twin(student), [term], data, tmp_path, teachers=teachers).history[0]["loss"] <= 1
    with pytest.raises(RecipeError, match="set gradient_accumulation_steps to 1"):
        run(student, [term], data, tmp_path, teachers=teachers, arguments={"gradient_accumulation_steps": 2})


def test_staying_near_the_start_is_a_divergence_from_the_reference(student, tools, tmp_path):
    """No pull at the start; with the pull the student ends nearer to where it began."""
    examples, extra = tools.examples(4), tools.examples(4, seed=8)
    learn = Term("supervised.cross_entropy", supervised.cross_entropy, "x")
    ends = {}
    for weight in (0.0, 5.0):
        stay = Term("divergence.forward_kl", divergence.forward_kl, "y", weight, teacher="reference")
        own = twin(student)
        done = run(own, [learn, stay], {"x": examples, "y": extra}, tmp_path / str(weight), arguments={"max_steps": 25})
        key = "loss/divergence.forward_kl on y"
        assert done.history[0][key] == pytest.approx(0, abs=1e-6)
        ends[weight] = done.history[-1][key]
    assert ends[5.0] < 0.5 * ends[0.0]


def test_the_sampled_reverse_kl_is_the_mean_gap_of_log_probs(student, teacher, tools, tmp_path, monkeypatch):
    """P21, P22: log q - log p of the student's own tokens, at a ratio of 1."""
    seen = []
    real = trainer.roll_out

    def kept(*given, **named):
        seen.append(real(*given, **named))
        return seen[-1]

    monkeypatch.setattr(trainer, "roll_out", kept)
    term = Term("reinforcement.sampled_reverse_kl", reinforcement.sampled_reverse_kl, "rollouts", teacher="t")
    own = twin(student)
    done = run(
        own, [term], {"x": tools.examples(4)}, tmp_path, teachers={"t": teacher},
        rollouts=Rollouts("x", max_new_tokens=8), arguments={"max_steps": 1},
    )  # fmt: skip
    gaps = []
    for [item] in seen[0]:
        ids = torch.tensor([item.ids.tolist()])
        for model, sign in ((student.model, 1), (teacher.model, -1)):
            with torch.no_grad():
                logprobs = torch.log_softmax(model(ids).logits[0], -1)
            gaps.append(sign * sum(float(logprobs[at - 1, ids[0, at]]) for at in range(item.start, len(item.ids))))
    assert done.history[0]["loss"] == pytest.approx(sum(gaps) / done.target_tokens, rel=1e-4)
    warm = Rollouts("x", max_new_tokens=8, temperature=0.7)
    with pytest.raises(RecipeError, match="set temperature and top_p of the rollouts to 1"):
        run(student, [term], {"x": tools.examples(4)}, tmp_path, teachers={"t": teacher}, rollouts=warm)


def test_minillm_and_fusion_find_their_arrays(student, teacher, tools, tokenizer, tmp_path):
    data = {"x": tools.examples(4)}
    second = tools.white_box(tools.model(tokenizer, seed=2), tokenizer)
    own = Term("minillm.minillm", minillm.minillm, "rollouts", teacher="t")
    done = run(
        twin(student), [own], data, tmp_path / "a", teachers={"t": teacher}, rollouts=Rollouts("x", max_new_tokens=6),
        arguments={"max_steps": 25},
    )  # fmt: skip
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    both = Term("fusion.mean_of_logits", fusion.mean_of_logits, "x", teacher=("t", "u"))
    fused = run(twin(student), [both], data, tmp_path / "b", teachers={"t": teacher, "u": second})
    twice = Term("fusion.mean_of_logits", fusion.mean_of_logits, "x", teacher=("t", "t"))
    alone = Term("divergence.forward_kl", divergence.forward_kl, "x", teacher="t")
    losses = [
        run(twin(student), [term], data, tmp_path / name, teachers={"t": teacher}).history[0]["loss"]
        for name, term in (("c", twice), ("d", alone))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert fused.history[0]["loss"] != pytest.approx(losses[1], rel=1e-3)


def count_of_a(responses, references):
    return [Grade(text.count("a") / max(len(text), 1), "counted") for text in responses]


def test_a_student_learns_what_a_grader_rewards(student, tools, tmp_path):
    term = Term("reinforcement.leave_one_out", reinforcement.leave_one_out, "rollouts")
    rollouts = Rollouts("x", samples=8, max_new_tokens=8, reward=count_of_a)
    done = run(
        student, [term], {"x": tools.examples(4)}, tmp_path, rollouts=rollouts,
        arguments={"max_steps": 40, "learning_rate": 0.02},
    )  # fmt: skip
    rewards = [row["reward"] for row in done.history]
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5])
    assert sum(rewards[-5:]) / 5 > 0.3


def test_an_answer_nobody_can_grade_does_not_count(student, tools, tmp_path):
    """Neither as a reward of 0 nor in the mean of its group."""
    seen = []

    def some(responses, references):
        grades = [Grade(None, "no_reference") if at % 2 else Grade(1.0, "right") for at in range(len(responses))]
        seen.append(len(grades))
        return grades

    term = Term("reinforcement.group_advantage", reinforcement.group_advantage, "rollouts")
    rollouts = Rollouts("x", samples=4, max_new_tokens=5, reward=some)
    done = run(student, [term], {"x": tools.examples(4)}, tmp_path, rollouts=rollouts)
    assert seen == [16, 16]
    assert [row["reward"] for row in done.history] == [1.0, 1.0]
    # every reward that counts is the same: nothing to prefer
    assert [row["grad_norm"] for row in done.history] == [0, 0]


def test_rewards_need_answers_to_compare(student, tools, tmp_path):
    term = Term("reinforcement.group_advantage", reinforcement.group_advantage, "rollouts")
    data = {"x": tools.examples(4)}
    with pytest.raises(
        RecipeError, match="needs rewards_S, which rollouts records do not give; learn from rollouts with"
    ):
        run(student, [term], data, tmp_path, rollouts=Rollouts("x"))
    with pytest.raises(RecipeError, match="set fraction to 1 and samples to 2 or more"):
        run(student, [term], data, tmp_path, rollouts=Rollouts("x", reward=count_of_a))


TINY = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = {
    "llama": (LlamaConfig(**TINY), True),
    "tied": (LlamaConfig(**TINY, tie_word_embeddings=True), True),
    "gpt2": (GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2), True),
    "gemma2": (Gemma2Config(**TINY, num_key_value_heads=2, head_dim=8, final_logit_softcapping=0.1), False),
    "cohere": (CohereConfig(**TINY, logit_scale=0.25), True),
    "granite": (GraniteConfig(**TINY, logits_scaling=4.0), True),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_logits_are_its_own(family):
    """P27: scaling, soft caps and tied heads; a head is applied apart only where that is measured to be the same."""
    config, plain = FAMILIES[family]
    torch.manual_seed(0)
    config.initializer_range = 0.5
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(1, 13).reshape(2, 6)
    positions = torch.arange(6).expand(2, -1)
    marked = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0]], dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(show(model, ids, positions, marked).logits_NV, model(ids).logits[marked], atol=1e-6)
    assert has_plain_head(model) == plain
    assert model.get_output_embeddings().weight.shape == (50, 16)
    assert packs_sequences(model)


@pytest.mark.parametrize("lora", [None, {"rank": 2}, {"rank": 2, "targets": ["lm_head", "q_proj"]}])
def test_unmade_logits_teach_the_same(lora, student, teacher, tools, rankings, tmp_path, monkeypatch):
    """Losses and gradient norms with logits made a few positions at a time, online teacher and reference included."""
    save_student(student, tmp_path / "base")
    terms = [
        Term("supervised.cross_entropy", supervised.cross_entropy, "x", 0.5),
        Term("divergence.jensen_shannon", divergence.jensen_shannon, "x", teacher="t"),
        Term("ranking.dpo", ranking.dpo, "y"),
        Term("divergence.reverse_kl", divergence.reverse_kl, "rollouts", teacher="t"),
    ]
    rows = []
    for size in (10**9, 1):
        monkeypatch.setattr(fitting, "_LARGE_VOCABULARY", size)
        own = load_student(tmp_path / "base", lora=lora)
        assert has_plain_head(own.model) == (lora is None or "targets" not in lora)
        done = run(
            own, terms, {"x": tools.examples(8), "y": rankings}, tmp_path / str(size), teachers={"t": teacher},
            rollouts=Rollouts("x", max_new_tokens=5),
        )  # fmt: skip
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in done.history])
    assert len(rows[0][0]) == len(rows[1][0]) == 10
    for made, unmade in zip(*rows):
        assert unmade == pytest.approx(made, rel=2e-4)
