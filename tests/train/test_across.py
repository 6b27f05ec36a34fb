"""A teacher that cuts text into other tokens, through the whole trainer."""

import copy

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Regex, Tokenizer, decoders, models, pre_tokenizers
from train_helpers import SPECIAL, TEMPLATE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from stillhouse.errors import RecipeError
from stillhouse.objectives import cross_tokenizer, divergence, fusion
from stillhouse.records import Example, user
from stillhouse.teachers.transformers import Teacher
from stillhouse.train.across import Bridge
from stillhouse.train.student import Student
from stillhouse.train.trainer import Rollouts, Term, train

KL = Term("divergence.forward_kl", divergence.forward_kl, "x", teacher="t")


def run(student, term, examples, out, teacher, **more):
    own = Student(copy.deepcopy(student.model), student.tokenizer)
    arguments = {"max_steps": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
    return train(own, [term], {"x": examples}, teachers={"t": teacher}, arguments=arguments, out=out, seed=0, **more)


def reordered(tokenizer, extra=()):
    """The same letters under other ids, and the ids' old places."""
    old = tokenizer.get_vocab()
    letters = sorted((t for t in old if t not in SPECIAL), key=old.__getitem__, reverse=True)
    pieces = [*SPECIAL, *letters, *extra]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="."))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip
    made.chat_template = TEMPLATE
    return made, torch.tensor([old[piece] for piece in pieces[: len(old)]])


@pytest.fixture
def renamed(teacher, tools):
    """The teacher itself, its tokens under other ids: it says the same of every text."""
    tokenizer, places = reordered(teacher.own_tokenizer)
    model = copy.deepcopy(teacher.model)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(teacher.model.model.embed_tokens.weight[places])
        model.lm_head.weight.copy_(teacher.model.lm_head.weight[places])
    return tools.white_box(model, tokenizer)


def test_other_ids_of_the_same_tokens_change_nothing(student, teacher, renamed, tools, tmp_path):
    """P26, R30: the losses are those of the teacher with the student's own ids."""
    examples = tools.examples(6)
    same = run(student, KL, examples, tmp_path / "a", teacher)
    other = run(student, KL, examples, tmp_path / "b", renamed)
    assert [row["loss"] for row in other.history] == pytest.approx([row["loss"] for row in same.history], rel=1e-4)
    assert (same.coverage, other.coverage) == ({}, {"t": 1.0})


def test_own_answers_are_compared_by_their_text(student, renamed, tools, tmp_path):
    """A random student writes special tokens, which spell nothing and which the teacher never reads."""
    term = Term(KL.name, KL.objective, "rollouts", teacher="t")
    done = run(student, term, tools.examples(6), tmp_path, renamed, rollouts=Rollouts("x", max_new_tokens=8))
    assert all(row["loss"] > 0 for row in done.history)
    assert 0.5 < done.coverage["t"] < 1


def test_hybrid_is_the_plain_divergence_where_all_tokens_are_shared(student, teacher, tools, tmp_path):
    examples = tools.examples(6)
    hybrid = Term("cross_tokenizer.hybrid", cross_tokenizer.hybrid, "x", teacher="t")
    plain = run(student, KL, examples, tmp_path / "a", teacher).history
    mixed = run(student, hybrid, examples, tmp_path / "b", teacher).history
    assert [row["loss"] for row in mixed] == pytest.approx([row["loss"] for row in plain], rel=1e-4)


def test_sorted_probabilities_do_not_care_about_ids(student, teacher, renamed, tools, tmp_path):
    """ULD, by count from the first token and by bytes: one and the same where all tokens are shared."""
    examples = tools.examples(6)
    losses = []
    for number, (box, align) in enumerate([(teacher, "bytes"), (renamed, "bytes"), (renamed, "count")]):
        term = Term("divergence.universal_logit", divergence.universal_logit, "x", teacher="t", align=align)
        losses.append([row["loss"] for row in run(student, term, examples, tmp_path / str(number), box).history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_what_differs_is_not_compared_and_the_run_says_so(student, tools, tmp_path):
    """A teacher that knows pairs of letters starts fewer tokens: the share of positions it can be compared at is told."""
    tokenizer, _ = reordered(student.tokenizer, extra=["ab", "cd"])
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("ab|cd|."), "isolated")
    box = tools.white_box(tools.model(tokenizer, seed=1), tokenizer)
    examples = [Example(str(n), user("say it"), "abxcdy") for n in range(4)]
    done = run(student, KL, examples, tmp_path, box)
    # a and c start tokens of both, x, y and the end too; b and d do not: 5 of 7
    assert done.coverage == {"t": pytest.approx(5 / 7)}
    assert done.history[-1]["coverage/t"] == pytest.approx(5 / 7)
    bridge = Bridge(student.tokenizer, tokenizer)
    assert bridge.matched_U[-2:].tolist() == [-1, -1]
    assert [student.tokenizer.convert_ids_to_tokens(i) for i in bridge.first_U[-2:].tolist()] == ["a", "c"]
    spans = Term("cross_tokenizer.span_likelihood", cross_tokenizer.span_likelihood, "x", teacher="t")
    assert run(student, spans, examples, tmp_path / "s", box).coverage == {"t": 1.0}


FUSED = [fusion.mean_of_probabilities, fusion.minimum_cross_entropy, fusion.cross_entropy_weighted]


@pytest.mark.parametrize("objective", FUSED)
def test_fusion_does_not_care_under_which_ids_a_teacher_speaks(objective, student, teacher, renamed, tools, tmp_path):
    """R30: the same teacher under other ids is fused to the same loss; a second one makes the fusion do something."""
    examples = tools.examples(6)
    second = tools.white_box(tools.model(student.tokenizer, seed=5), student.tokenizer)
    term = Term("fusion", objective, "x", teacher=["t", "u"])

    def losses(first, folder):
        own = Student(copy.deepcopy(student.model), student.tokenizer)
        arguments = {"max_steps": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
        boxes = {"t": first, "u": second}
        done = train(own, [term], {"x": examples}, teachers=boxes, arguments=arguments, out=folder, seed=0)
        return [row["loss"] for row in done.history], done.coverage

    same, other = losses(teacher, tmp_path / "a"), losses(renamed, tmp_path / "b")
    assert other[0] == pytest.approx(same[0], rel=1e-4)
    assert (same[1], other[1]) == ({}, {"t": 1.0})


def test_mean_of_logits_refuses_another_tokenizer(student, teacher, renamed, tools, tmp_path):
    term = Term("fusion.mean_of_logits", fusion.mean_of_logits, "x", teacher=["t", "t"])
    with pytest.raises(RecipeError, match=r"different tokenizers, and objective fusion\.mean_of_logits"):
        run(student, term, tools.examples(6), tmp_path, renamed)


def test_each_example_goes_to_the_teacher_it_names(student, renamed, tools, tmp_path):
    """A position counts where its own teacher begins a token, wherever the other one does."""
    pairs, _ = reordered(student.tokenizer, extra=["ab", "cd"])
    pairs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("ab|cd|."), "isolated")
    boxes = {"t": renamed, "pairs": tools.white_box(tools.model(pairs, seed=1), pairs)}
    examples = [
        Example(str(n), user(f"say {n}"), "abxcdy", columns={"expert": name}) for n, name in enumerate(["t", "pairs"])
    ]
    term = Term("fusion.routed", fusion.routed, "x", teacher=["t", "pairs"], route="expert")
    own = Student(copy.deepcopy(student.model), student.tokenizer)
    arguments = {"max_steps": 1, "per_device_train_batch_size": 2, "logging_steps": 1}
    done = train(own, [term], {"x": examples}, teachers=boxes, arguments=arguments, out=tmp_path, seed=0)
    assert done.coverage == {"t": 1.0, "pairs": pytest.approx(5 / 7)}


def test_padding_of_either_head_does_not_count_in_the_universal_loss(student, teacher, renamed, tools, tmp_path):
    """P12, R30: heads wider than their tokenizers, with likely padding, give the loss of the same models without it."""

    def widened(model, by):
        wide = copy.deepcopy(model)
        wide.resize_token_embeddings(model.config.vocab_size + by, mean_resizing=False)
        with torch.no_grad():
            wide.lm_head.weight[-by:] = model.lm_head.weight[:by] * 3
        return wide

    term = Term("divergence.universal_logit", divergence.universal_logit, "x", teacher="t")
    examples = tools.examples(6)
    plain = run(student, term, examples, tmp_path / "a", renamed).history
    wide = Student(widened(student.model, 3), student.tokenizer)
    box = tools.white_box(widened(renamed.model, 5), renamed.own_tokenizer)
    padded = run(wide, term, examples, tmp_path / "b", box).history
    assert padded[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("objective", [cross_tokenizer.hybrid, cross_tokenizer.span_likelihood, divergence.forward_kl])
def test_a_published_teacher_and_another_familys_tokenizer(objective, data, tmp_path):
    """R30: stories260K (512 sentence pieces, a blank before the first word) teaches a student with GPT-2's tokenizer."""
    folder = data / "gpt2-tokenizer"
    backend = ByteLevelBPETokenizer(str(folder / "gpt2_vocab.json"), str(folder / "gpt2_merges.txt"))._tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=128))
    texts = ["Once upon a time, there was a little girl named Lily.", "The café's dog — so small — said: “Wow! 😀”"]
    examples = [Example(str(n), user("Tell a story."), text) for n, text in enumerate(texts)]
    teacher = Teacher(model=data / "stories260K" / "hf")
    done = run(Student(model, tokenizer), Term("o", objective, "x", teacher="t"), examples, tmp_path, teacher)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert 0.5 < done.coverage["t"] <= 1
