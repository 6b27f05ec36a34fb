import json
import math as m
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.evaluate.tasks.language_model import language_model
from stillhouse.evaluate.tasks.qa import qa
from stillhouse.graders import math

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
STORIES = Path(DATA or "") / "stories260K" / "hf"
needs_data = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")


def test_qa_grades_each_row_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    rows = [
        {"prompt": "2+2", "reference": "4"},
        {"prompt": "2+3", "reference": "5"},
        {"prompt": "x", "reference": "word"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    asked: list[tuple[int, int]] = []

    def ask(prompts, max_new_tokens):  # type: ignore[no-untyped-def]
        asked.append((len(prompts), max_new_tokens))
        return ["The answer is 4." for _ in prompts]

    scores = qa(ask, path=path, grader=math.equal, max_new_tokens=9)
    assert asked == [(3, 9)]
    assert [(s.prompt, s.reference, s.value, s.reason) for s in scores] == [
        ("2+2", "4", 1.0, "equal"),
        ("2+3", "5", 0.0, "different"),
        ("x", "word", None, "unreadable_reference"),
    ]
    assert len({s.item_id for s in scores}) == 3
    assert len(qa(ask, path=path, grader=math.equal, limit=2)) == 2


def test_qa_names_the_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"prompt": "a", "reference": "b"}\n{"prompt":\n')
    with pytest.raises(RecipeError, match="2"):
        qa(lambda prompts, n: [""] * len(prompts), path=path, grader=math.equal)


@needs_data
def test_language_model_matches_the_library_s_own_loss() -> None:
    """R25: the window's nll is the loss of `transformers` times its tokens; a model agrees with itself, KL 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(STORIES)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    path = Path(DATA or "") / "text" / "tinystories_1000.json"
    model.train()
    scores = language_model(model, tokenizer, model, path=path, window=64, limit=5, batch_size=2)
    assert model.training  # left in the mode it came in
    model.eval()
    first = json.loads(path.read_text(encoding="utf-8"))[0]
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(first, add_special_tokens=False)["input_ids"][:63]]])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert scores[0].tokens == 63
    assert scores[0].text and first.startswith(scores[0].text.strip())
    assert scores[0].nll == pytest.approx(loss * 63, rel=1e-4)
    assert [(s.kl_from_teacher, s.agreements) for s in scores] == [(0.0, 63)] * 5
    assert m.exp(sum(s.nll for s in scores) / sum(s.tokens for s in scores)) < 8


@needs_data
def test_language_model_against_a_random_student_and_plain_text(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    teacher = AutoModelForCausalLM.from_pretrained(STORIES)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    torch.manual_seed(0)
    student = AutoModelForCausalLM.from_config(teacher.config)
    path = tmp_path / "text.txt"
    path.write_text("Once upon a time there was a little girl named Lily. She loved to play outside. " * 6)
    scores = language_model(student, tokenizer, teacher, path=path, window=32)
    for score in scores:
        # cross-entropy of a near-uniform student on 512 tokens; Gibbs: KL > 0; agreement by chance only
        assert score.nll / score.tokens == pytest.approx(m.log(512), abs=0.5)
        assert score.kl_from_teacher is not None
        assert score.kl_from_teacher > score.tokens
        assert (score.agreements or 0) < score.tokens / 4
    assert len(scores) > 3
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(RecipeError, match="no text"):
        language_model(student, tokenizer, path=empty)
