"""The store: what is refused, what is not worked out twice, what a kill leaves, who may write at the same time."""

import json
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_helpers import TEMPLATE, make_model, make_tokenizer

from stillhouse.elicit import feature
from stillhouse.errors import RecipeError, RunFailed
from stillhouse.records import Example, StoredSignal, content_id, user
from stillhouse.render import render
from stillhouse.signals import taking
from stillhouse.signals.beliefs import StoredSignals
from stillhouse.signals.store import SignalReader

KINDS = [
    (feature.top_k, {"k": 8}),
    (feature.top_k, {"k": 20, "least": 1e-2}),
    (feature.sampled_tokens, {"draws": 16}),
    (feature.hidden_states, {}),
    (feature.hidden_states, {"dtype": "int8"}),
]


def elicited(kind: Any, knobs: dict[str, Any], examples: Any, teacher: Any) -> list[StoredSignal]:
    found = list(kind(examples, teacher, **knobs))
    assert all(isinstance(one, StoredSignal) for one in found)
    return found


def joined(records: list[StoredSignal], tokenizer: Any, *, change: Any = None) -> StoredSignals:
    responses = [render(tokenizer, one.prompt, one.response).response for one in records]
    if change is not None:
        responses = [change(ids) for ids in responses]
    return StoredSignals("here", Path(records[0].store), [one.row for one in records], responses, tokenizer)


@pytest.mark.parametrize(("kind", "knobs"), KINDS)
def test_what_is_stored_is_the_teacher_at_the_targets(kind: Any, knobs: Any, examples: Any, teacher: Any) -> None:
    """In any order and in batches: p of the response's own tokens, from a forward pass of each row alone."""
    from stillhouse.kernels.beliefs import Dense, Sampled, TopK

    records = elicited(kind, knobs, examples, teacher)
    signals = joined(records, teacher.own)
    order = [7, 0, 19, 3]
    beliefs = signals.beliefs(order, vocabulary=len(teacher.own))
    dense = []
    for number in order:
        whole = render(teacher.own, records[number].prompt, records[number].response)
        with torch.no_grad():
            dense.append(teacher.model(torch.tensor([whole.ids])).logits[0, whole.start - 1 : -1].softmax(-1))
    p = torch.cat(dense)
    assert beliefs.positions == len(p)
    if isinstance(beliefs, TopK):
        kept = beliefs.ids_NK >= 0
        said, true = beliefs.logprobs_NK.exp(), p.gather(-1, beliefs.ids_NK.clamp(min=0))
        assert (said - true)[kept].abs().max() < 0.04
    elif isinstance(beliefs, Sampled):
        share = torch.zeros_like(p).scatter_add_(-1, beliefs.ids_NK, beliefs.counts_NK / 16)
        assert (share - p).abs().max() <= 1 / 16
        assert beliefs.distinct
        drawn = [ids[counts > 0].tolist() for ids, counts in zip(beliefs.ids_NK, beliefs.counts_NK)]
        assert all(len(set(ids)) == len(ids) for ids in drawn)
    else:
        assert isinstance(beliefs, Dense)
        q = beliefs.logits_NV.source().rows(torch.arange(len(p)), p.shape[-1], torch.float32).softmax(-1)
        assert (q - p).abs().max() < (1e-5 if "dtype" not in knobs else 0.02)


@pytest.mark.parametrize(("kind", "knobs"), KINDS)
def test_nothing_is_worked_out_twice(kind: Any, knobs: Any, examples: Any, teacher: Any) -> None:
    first = elicited(kind, knobs, examples[:12], teacher)
    passes = []
    teacher.model.register_forward_hook(lambda *_: passes.append(1))
    assert elicited(kind, knobs, examples[:12], teacher) == first
    assert not passes
    again = elicited(kind, knobs, examples, teacher)
    assert again[:12] == first
    assert passes
    assert len(SignalReader(Path(first[0].store))) == 20


def test_a_row_too_long_for_the_teacher_is_lost_with_its_reason(teacher: Any) -> None:
    long = Example("long", user("a"), "b" * 200)
    (lost,) = feature.top_k([long], teacher)
    assert lost.reason == "too_long"  # type: ignore[union-attr]


def test_another_tokenizer_template_or_text_is_refused_in_one_sentence(examples: Any, teacher: Any) -> None:
    records = elicited(feature.top_k, {}, examples, teacher)
    with pytest.raises(RecipeError, match="another tokenizer"):
        joined(records, make_tokenizer(more="ABC"))
    with pytest.raises(RecipeError, match="another chat template"):
        joined(records, make_tokenizer(TEMPLATE.replace("<s>", "<s>\n")))
    with pytest.raises(RecipeError, match="end a turn with token 2 and the student with 1"):
        other = make_tokenizer(TEMPLATE.replace("<|end|>", "<s>"))
        joined(records, other)
    with pytest.raises(RecipeError, match="about other tokens"):
        joined(records, teacher.own, change=lambda ids: [*ids[:-1], 5])
    with pytest.raises(RecipeError, match="1 of 20 rows have no signals"):
        joined([*records[:-1], replace(records[-1], row="0" * 16)], teacher.own)


def test_another_teacher_has_a_store_of_its_own(examples: Any, teacher: Any, tokenizer: Any) -> None:
    one = elicited(feature.top_k, {}, examples, teacher)
    other = elicited(feature.top_k, {}, examples, replace(teacher, model=make_model(tokenizer, seed=2)))
    assert one[0].store != other[0].store
    assert one[0].row == other[0].row


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize(("kind", "knobs"), KINDS)
def test_p01_p25_signals_one_place_off_are_refused(
    kind: Any, knobs: Any, shift: int, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that knows its text, and a writer with the field's commonest mistake in it."""
    from small_teacher import SmallTeacher

    text = "the quick brown fox jumps over a lazy dog and "
    model = make_model(tokenizer)
    rows = [Example(content_id(n), user("go"), (text * 2)[n : n + 40]) for n in range(8)]
    _learn(model, [render(tokenizer, row.prompt, row.response).ids for row in rows])
    whole = SmallTeacher(tmp_path / "right", model, tokenizer)
    joined(elicited(kind, knobs, rows, whole), tokenizer)
    for name in ("top_k", "sampled"):
        true = getattr(taking, name)
        monkeypatch.setattr(
            f"stillhouse.signals.eliciting.{name}",
            lambda logits, _true=true, **how: _true(logits.roll(shift, 0), **how),
        )
    monkeypatch.setattr(
        "stillhouse.signals.eliciting.scale_of", lambda *_: 1.0
    )  # a check of its own would find it first
    monkeypatch.setattr("stillhouse.signals.codecs.StatesCodec.encode", _rolled(shift))
    wrong = SmallTeacher(tmp_path / "wrong", model, tokenizer)
    with pytest.raises(RecipeError, match=f"stand 1 place {'later' if shift > 0 else 'earlier'} than the tokens"):
        joined(elicited(kind, knobs, rows, wrong), tokenizer)


def test_a_teacher_that_only_repeats_itself_is_not_taken_for_a_shifted_one(tokenizer: Any, tmp_path: Path) -> None:
    """It explains the token before each place better than the one at it, and still stands where it should."""
    from small_teacher import SmallTeacher

    model = make_model(tokenizer)
    with torch.no_grad():
        for layer in model.model.layers:  # nothing but the embedding of the last token, sent through itself
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight.zero_()
        model.lm_head.weight.copy_(3 * model.model.embed_tokens.weight)
    rows = [Example(content_id(n), user("go"), ("abcdefghijklmnop qrstuvwxyz" * 3)[n : n + 40]) for n in range(12)]
    for kind, knobs in KINDS:
        joined(elicited(kind, knobs, rows, SmallTeacher(tmp_path, model, tokenizer)), tokenizer)


def test_a_writer_that_reads_the_wrong_place_is_stopped_at_the_first_row(
    examples: Any, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.teachers import forced

    true = forced._read
    shifted = lambda model, tok, rows, take, hidden: true(  # noqa: E731
        model, tok, rows, lambda row, logits, states: take(row, logits.roll(1, 0), states), hidden
    )
    monkeypatch.setattr(forced, "_read", shifted)
    with pytest.raises(RunFailed, match="do not stand at their tokens"):
        list(feature.top_k(examples, teacher))


def _rolled(shift: int) -> Any:
    from stillhouse.signals.codecs import StatesCodec

    true = StatesCodec.encode
    return lambda self, hidden: true(self, np.roll(hidden, shift, 0))


def _learn(model: Any, rows: list[list[int]]) -> None:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.where(ids == 0, -100, ids)
    step = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(60):
        step.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        step.step()
    model.eval().requires_grad_(False)


def test_a_changed_contract_and_a_damaged_row_are_found(examples: Any, teacher: Any) -> None:
    records = elicited(feature.top_k, {}, examples, teacher)
    folder = Path(records[0].store)
    (rows,) = folder.glob("*.bin")
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 1
    rows.write_bytes(data)
    with pytest.raises(RunFailed, match="damaged"):
        joined(records, teacher.own).beliefs(range(20), vocabulary=len(teacher.own))
    told = json.loads((folder / "contract.json").read_text())
    told["teacher"]["revision"] = "another"
    (folder / "contract.json").write_text(json.dumps(told))
    with pytest.raises(RunFailed, match="changed after it was written"):
        SignalReader(folder)


def test_two_writers_at_once_and_a_reader_in_another_process(examples: Any, teacher: Any) -> None:
    parts = examples[:14], examples[6:]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda part: elicited(feature.sampled_tokens, {}, part, teacher), parts))
    assert found[0][6:] == found[1][:8]
    reader = SignalReader(Path(found[0][0].store))
    keys = [one.row for one in found[0] + found[1]]
    places = reader.places(keys)
    assert (places >= 0).all()
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.read(places).ids_n == reader.read(places).ids_n).all()


_WRITE = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from small_teacher import SmallTeacher
from train_helpers import make_examples, make_model, make_tokenizer
from stillhouse.elicit import feature
from stillhouse.signals import eliciting
eliciting._AT_ONCE = 4
tokenizer = make_tokenizer()
teacher = SmallTeacher(Path({home!r}), make_model(tokenizer, seed=1), tokenizer)
for number, _ in enumerate(feature.top_k(make_examples(20), teacher)):
    if number == 9:
        print("ten", flush=True)
        time.sleep(60)
"""


def test_kill_9_leaves_whole_rows_and_the_rest_is_worked_out(examples: Any, teacher: Any) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "train")]
    script = _WRITE.format(paths=paths, home=str(teacher.home))
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ten\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    (folder,) = teacher.home.iterdir()
    assert len(SignalReader(folder)) == 12
    (index,) = folder.glob("*.index")
    with open(index, "ab") as file:
        file.write(b"half an entry")
    seen = []
    teacher.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    records = elicited(feature.top_k, {}, examples, teacher)
    assert sum(seen) == 8
    joined(records, teacher.own).beliefs(range(20), vocabulary=len(teacher.own))


class Served:
    """A teacher behind a server: it tells the likeliest tokens of a response and shows nothing else."""

    name = "served"

    def __init__(self, local: Any) -> None:
        self.local = local

    def identity(self) -> Any:
        return replace(self.local.identity(), wire="openai-completions")

    def tokenizer_fingerprint(self) -> str:
        return self.local.tokenizer_fingerprint()

    def signals(self) -> Path:
        return self.local.signals()

    def top_logprobs(self, pairs: Any, *, k: int) -> Any:
        from stillhouse.teachers.base import TokenBeliefs

        for prompt, response in pairs:
            whole = render(self.local.own, prompt, response)
            with torch.no_grad():
                logits = self.local.model(torch.tensor([whole.ids])).logits[0, whole.start - 1 : -1]
            top = logits.log_softmax(-1).topk(k)
            yield TokenBeliefs(np.array(whole.response), top.indices.numpy(), top.values.numpy())


def test_a_served_teacher_fills_the_same_store_of_likeliest_tokens(examples: Any, teacher: Any) -> None:
    served = elicited(feature.top_k, {"k": 8}, examples, Served(teacher))
    local = elicited(feature.top_k, {"k": 8}, examples, teacher)
    assert served[0].store != local[0].store  # another wire
    ours, theirs = (
        joined(rows, teacher.own).beliefs(range(20), vocabulary=len(teacher.own)) for rows in (local, served)
    )
    assert (ours.ids_NK == theirs.ids_NK).all()
    assert torch.allclose(ours.logprobs_NK, theirs.logprobs_NK)
    with pytest.raises(RecipeError, match="cannot show its distributions"):
        list(feature.sampled_tokens(examples, Served(teacher)))
