"""Citations against passages (R19), entailment scripted; and a classifier of pairs made small enough to build here."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade, citation
from stillhouse.graders.entailment import follows

PASSAGES = json.dumps(["K2 is 8611 m high", "Everest is 8849 m high"])


def contained(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
    return [
        Grade(float({w.strip(".") for w in said.split()} <= set((text or "").split())), "scripted")
        for said, text in zip(responses, references, strict=True)
    ]


@pytest.mark.parametrize(
    ("answer", "named", "recall", "precision"),
    [
        ("K2 is 8611 m high [1]. Everest is 8849 m high.[2]", 1.0, 1.0, 1.0),
        ("K2 is 8611 m high [2]. Everest is high [1, 2].", 1.0, 0.5, 1 / 3),
        ("K2 is 8611 m high [3].", 0.0, 0.0, 0.0),
        ("K2 is 8611 m high [1]. It is cold.", 1.0, 0.5, 1.0),
        ("K2 is high.", 0.0, 0.0, 0.0),
    ],
)
def test_shares_by_hand(answer: str, named: float, recall: float, precision: float) -> None:
    assert citation.named([answer], [PASSAGES])[0].value == named
    assert citation.recall([answer], [PASSAGES], grader=contained)[0].value == pytest.approx(recall)
    assert citation.precision([answer], [PASSAGES], grader=contained)[0].value == pytest.approx(precision)


def test_passages_are_a_list_or_begin_with_their_numbers() -> None:
    assert citation.passages_of("[1] One.\nStill one.\n[2]: Two.") == {1: "One.\nStill one.", 2: "Two."}
    assert citation.passages_of('[{"text": "One."}, "Two."]') == {1: "One.", 2: "Two."}
    assert citation.named(["x [1]"], ["no passages"])[0] == Grade(None, "unreadable_reference")
    assert citation.named(["x [1]"], [None])[0].value is None


def test_what_entailment_cannot_tell_is_not_told() -> None:
    def never(responses: Sequence[str], references: Sequence[str | None]) -> list[Grade]:
        return [Grade(None, "crashed")] * len(responses)

    assert citation.recall(["K2 is high [1]."], [PASSAGES], grader=never)[0] == Grade(None, "could_not_tell")


def test_entailment_by_a_classifier_of_pairs(tmp_path: Path) -> None:
    """The mechanism on a model with random weights and a bias that decides: label by name, order of the pair, too long a pair."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    names = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5}
    raw = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path / "nli")
    shape = {
        "vocab_size": 6,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    labels = {0: "contradiction", 1: "entailment", 2: "neutral"}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**shape, max_position_embeddings=8, num_labels=3, id2label=labels))
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 3.0, 0.0]))
    model.save_pretrained(tmp_path / "nli")
    told = follows(["a", "b a", "a " * 9, "a"], ["b", "a", "b", None], model=str(tmp_path / "nli"), batch_size=2)
    assert [grade.reason for grade in told] == ["entailed", "entailed", "too_long", "no_reference"]
    with torch.inference_mode():
        by_hand = model.eval()(torch.tensor([[2, 5, 3, 4, 3]])).logits.softmax(-1)[0, 1].item()
    assert told[0].value == pytest.approx(by_hand, abs=1e-5)
    model.config.id2label = {0: "yes", 1: "no", 2: "maybe"}
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(RecipeError, match="no label called entailment; it has yes, no, maybe"):
        follows(["a"], ["b"], model=str(tmp_path / "other"))
