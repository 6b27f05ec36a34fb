"""Students that encode, from a recipe to a folder that finds passages (J9, R55, AugTriever, SK11)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apart_helpers import pair_tokenizer
from small_runs import write_jsonl
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from stillhouse import distill
from stillhouse.check import check
from stillhouse.embedding import Embedder
from stillhouse.errors import RecipeError
from stillhouse.objectives import embedding
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, Ranking, user
from stillhouse.train.student import load_student, save_student
from stillhouse.train.trainer import Term, train

ANIMALS = [
    "ant",
    "bee",
    "cat",
    "dog",
    "eel",
    "fox",
    "gnu",
    "hen",
    "ibex",
    "jay",
    "kite",
    "lark",
    "mole",
    "newt",
    "owl",
    "pig",
]


def base(folder: Path, *, roberta: bool = False, width: int = 32) -> Path:
    """A random encoder of letters."""
    tokenizer = pair_tokenizer(typed=not roberta)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    rest = {"max_position_embeddings": 96, "pad_token_id": 0, "vocab_size": len(tokenizer), "hidden_dropout_prob": 0.0}
    kind, config = (RobertaModel, RobertaConfig) if roberta else (BertModel, BertConfig)
    kind(config(**sizes, **rest)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs() -> list[dict[str, str]]:
    """Each animal lives where another one's name stands: nothing to find without having learned it."""
    others = zip(ANIMALS, [*ANIMALS[5:], *ANIMALS[:5]])
    return [{"prompt": f"where is the {name}", "reference": f"the {other}s hole"} for name, other in others]


def recipe(folder: Path, objective: dict[str, Any], **more: Any) -> dict[str, Any]:
    write_jsonl(folder / "rows.jsonl", pairs())
    write_jsonl(folder / "passages.jsonl", [{"text": row["reference"]} for row in pairs()])
    return {
        "name": "finder",
        "use": {"purpose": "research", "distributes": []},
        "knowledge": {
            "pairs": {
                "seeds": {"do": "file", "path": str(folder / "rows.jsonl")},
                "elicit": [{"do": "labeling.reference"}],
            }
        },
        "student": {"model": str(base(folder / "base")), "kind": "encoder", "terms": {"own_rights": "random weights"}},
        "train": {
            "objectives": [{**objective, "on": "pairs"}],
            "args": {"max_steps": 60, "learning_rate": 5e-3, "per_device_train_batch_size": 16, "logging_steps": 10},
        },
        "evaluate": [
            {"do": "retrieval", "name": f"{measure}@{k}", "path": str(folder / "rows.jsonl"), "measure": measure, "k": k,
             "passages": str(folder / "passages.jsonl")}
            for measure, k in (("recall", 1), ("ndcg", 10))
        ],
        **more,
    }  # fmt: skip


def test_it_learns_to_find_from_a_recipe(tmp_path: Path) -> None:
    """J9, R55: in-batch negatives alone; the untaught encoder is the base it is compared with."""
    run = distill(recipe(tmp_path, {"do": "embedding.in_batch"}), out=tmp_path / "run", quiet=True)
    means = {(row["task"], row["arm"]): row["mean"] for row in run.scores["summary"]}
    assert means["recall@1", run.scores["final"]["arm"]] > 0.8
    assert means["recall@1", "base"] < 0.5
    card = (run.path / "student" / "README.md").read_text(encoding="utf-8")
    assert "AutoModel.from_pretrained" in card
    assert "a vector for a text" in card


def test_a_teacher_that_encodes_teaches_a_smaller_one(data: Path, tmp_path: Path) -> None:
    """AugTriever's and R57's form: a published static encoder's similarities, of another width, without any label."""
    told = recipe(tmp_path, {"do": "embedding.similarity_kl", "teacher": "potion", "temperature": 0.1})
    potion = str(data / "potion-base-4M-int8")
    told["teachers"] = {"potion": {"backend": "encoder", "model": potion, "terms": {"record": "mit"}}}
    run = distill(told, out=tmp_path / "run", quiet=True)
    losses = [row["loss"] for row in map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("roberta", "pooling"), [(False, "mean"), (True, "cls"), (False, "last")])
def test_a_saved_encoder_gives_the_librarys_vectors(roberta: bool, pooling: str, tmp_path: Path) -> None:
    """In batches of unequal length by our loader, and by transformers alone, text by text."""
    student = load_student(base(tmp_path / "base", roberta=roberta), kind="encoder", pooling=pooling)
    save_student(student, tmp_path / "end")
    assert load_student(tmp_path / "end", kind="encoder").pooling == pooling
    texts = ["ab", "abcdef and more", "x"]
    found = Embedder(tmp_path / "end", batch_size=2).vectors(texts)
    model, tokenizer = AutoModel.from_pretrained(tmp_path / "end"), AutoTokenizer.from_pretrained(tmp_path / "end")
    for text, vector in zip(texts, found, strict=True):
        with torch.no_grad():
            states = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_sentence_transformers_reads_the_folder(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is no dependency of ours")
    save_student(load_student(base(tmp_path / "base"), kind="encoder"), tmp_path / "end")
    texts = ["ab", "abcdef and more"]
    expected = library.SentenceTransformer(str(tmp_path / "end"), device="cpu").encode(texts)
    np.testing.assert_allclose(Embedder(tmp_path / "end").vectors(texts), expected, atol=1e-5)


def test_a_step_of_pairs_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    """Margin-MSE looks at one query at a time, with LoRA as without."""
    rows = [
        Ranking(str(n), user(f"where is the {name}"), (f"a {name}", "a stone", "the sea"), (2.0, 0.5, 0.0))
        for n, name in enumerate(ANIMALS[:8])
    ]
    term, ends = Term("mm", embedding.margin_mse, "rows"), []
    for pieces in (1, 4):
        student = load_student(base(tmp_path / "base"), kind="encoder", lora={"rank": 4})
        arguments = {"max_steps": 2, "learning_rate": 0.01, "logging_steps": 1, "per_device_train_batch_size": 8 // pieces,
                     "gradient_accumulation_steps": pieces}  # fmt: skip
        done = train(
            student, [term], {"rows": rows}, teachers={}, arguments=arguments, out=tmp_path / str(pieces), seed=0
        )
        ends.append([row["loss"] for row in done.history])
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
    assert ends[0][1] < ends[0][0]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    told = recipe(tmp_path, {"do": "embedding.in_batch"})
    told["train"]["args"]["gradient_accumulation_steps"] = 2
    with pytest.raises(RecipeError, match="cannot be cut into micro-batches"):
        check(load_recipe(told, folder=tmp_path))
    told = recipe(tmp_path, {"do": "embedding.cosine"})
    with pytest.raises(RecipeError, match="name a teacher that encodes"):
        check(load_recipe(told, folder=tmp_path))
    told = recipe(tmp_path, {"do": "embedding.cosine", "teacher": "main"}, teachers={"main": {"backend": "pocket"}})
    with pytest.raises(RecipeError, match="cannot give vectors of texts; backends that can: encoder"):
        check(load_recipe(told, folder=tmp_path))
    told = recipe(tmp_path, {"do": "embedding.in_batch"})
    told["evaluate"] = [{"do": "qa", "path": str(tmp_path / "rows.jsonl"), "grader": {"do": "text.exact"}}]
    with pytest.raises(RecipeError, match="kind encoder; use retrieval"):
        check(load_recipe(told, folder=tmp_path))
    told["student"]["kind"], told["student"]["pooling"] = "causal_lm", "cls"
    with pytest.raises(RecipeError, match=r"student\.pooling"):
        check(
            load_recipe(
                {**told, "train": {"objectives": [{"do": "supervised.cross_entropy", "on": "pairs"}]}}, folder=tmp_path
            )
        )
    student = load_student(base(tmp_path / "base"), kind="encoder")
    with pytest.raises(RecipeError, match="rows without a prompt"):
        train(student, [Term("q", embedding.in_batch, "x")], {"x": [Example("0", (), "text")]}, teachers={},
              arguments={"max_steps": 1}, out=tmp_path / "o", seed=0)  # fmt: skip
