"""One subclass of transformers.Trainer, blind to the method: objectives return sums, and they are divided here, once.

The batches of a whole accumulation window are made before its first backward pass, the student's own answers among
them. What each objective's sum is divided by, the target positions of nonzero weight, is counted over that window and
over all processes. So a step is the same however its examples are cut into micro-batches.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from stillhouse.errors import RunFailed
from stillhouse.generate import answering
from stillhouse.kernels.alignment import token_bytes
from stillhouse.kernels.fused import target_logprobs
from stillhouse.kernels.memory import Remembers
from stillhouse.products import faster_linears
from stillhouse.quiet import quiet
from stillhouse.records import Lost, Record
from stillhouse.render import addressable, encodes, pad_id, types_texts
from stillhouse.train.arrays import Counted, GroupArrays
from stillhouse.train.batch import SCORERS, Branch, Item
from stillhouse.train.fitting import (
    check_head,
    check_tokens,
    compared_layers,
    lent,
    longest,
    modules_of,
    own_names,
    trained_weights,
    worth_fusing,
)
from stillhouse.train.forward import Shown, packs_sequences, show
from stillhouse.train.mismatched import MISMATCHED, with_mismatched
from stillhouse.train.online import OnlineTeacher, Start
from stillhouse.train.packing import Packed, pack
from stillhouse.train.plan import Plan
from stillhouse.train.replay import Memory
from stillhouse.train.resume import MEMORY, OBJECTIVES, Totals, identity_of, resume_point
from stillhouse.train.rollout import Rollouts, roll_out
from stillhouse.train.scoring import encoder_scores_at, own_positions, scores_at
from stillhouse.train.settings import batch_size, known_arguments, schedule, settings
from stillhouse.train.student import Student
from stillhouse.train.terms import REFERENCE, ROLLOUTS, Term, branches, check, held_out, online
from stillhouse.train.vectors import EmbeddingTeacher, VectorArrays, vectors_at

__all__ = ["Rollouts", "Term", "Trained", "known_arguments", "train"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did. `history` has the rows given to `on_progress`; `left_out` the records it could not use.

    `coverage`: of teachers with another tokenizer, the share of the target positions at which they were compared.
    """

    steps: int
    input_tokens: int
    target_tokens: int
    seconds: float
    history: list[dict[str, Any]]
    left_out: list[Lost]
    coverage: dict[str, float]
    objectives: dict[str, dict[str, Tensor]]  # what objectives with parameters of their own learned, by term


def train(
    student: Student,
    terms: Sequence[Term],
    data: Mapping[str, Sequence[Record]],
    *,
    teachers: Mapping[str, Any],
    arguments: Mapping[str, Any],
    out: Path,
    seed: int,
    rollouts: Rollouts | None = None,
    reference: Any | None = None,
    packing: bool = True,
    max_length: int | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Trains the student in place by the weighted sum of `terms` (Eq. 2), and says what was done.

    Each micro-batch holds `per_device_train_batch_size` records of every branch that a term reads. Checkpoints lie in
    `out`; called again with the same inputs it goes on from the last one, to the same weights. `reference` is
    the model that terms know by that name: by default the student as it comes. `max_length` defaults to the student's
    context; longer records are left out. Raises RecipeError for what cannot be right, RunFailed for a loss that is not
    finite (the last checkpoint stays).
    """
    max_length = longest(student, max_length)
    reading = student.reading
    found = branches(student.tokenizer, terms, data, rollouts, max_length, student.labels, reading)
    made = settings(arguments, Path(out), seed)
    whole = made.gradient_accumulation_steps * made.world_size == 1
    check(terms, found, teachers, rollouts, windows_are_whole=whole, kind=student.kind)
    check_head(student.model, terms)
    again = {ROLLOUTS: rollouts.epochs} if rollouts is not None else {}
    length = schedule(made, {name: len(branch) * again.get(name, 1) for name, branch in found.items()})
    plan = Plan(
        found, seed=seed, length=length, size=batch_size(made), rank=made.process_index, world=made.world_size,
        window=made.gradient_accumulation_steps, again=again,
    )  # fmt: skip
    shown = dict(teachers)
    named = online(terms, rollouts)
    if REFERENCE in named and REFERENCE not in teachers:
        shown[REFERENCE] = Start(student.model if reference is None else reference, student.tokenizer)
    beside: dict[str, Any] = {
        name: EmbeddingTeacher(name, shown[name])
        if reading.alone
        else OnlineTeacher(name, shown[name], student.tokenizer, reading)
        for name in sorted(named)
    }
    check_tokens(terms, rollouts, beside)
    identity = identity_of(student.model, terms, found, arguments, rollouts, seed, packing, max_length)
    with quiet(), lent(student.model, [term.objective for term in terms]), faster_linears(student.model):
        trainer = _Trainer(student, terms, plan, beside, rollouts, made, identity)
        trainer.packing = packing and not reading.alone and packs_sequences(student.model)
        trainer.on_progress = on_progress
        trainer.held_out = held_out(student.tokenizer, data, rollouts, max_length, reading)
        checkpoint = resume_point(Path(out), identity)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    totals = trainer.totals
    lost = [lost for branch in found.values() for lost in branch.lost]
    learned = {term.mark: term.objective.state_dict() for term in terms if isinstance(term.objective, nn.Module)}
    return Trained(
        made.max_steps, totals.input_tokens, totals.target_tokens, totals.seconds, totals.history, lost,
        trainer.coverage(), learned,
    )  # fmt: skip


class _Trainer(Trainer):
    loss_is_scaled_for_ga = True  # divided by the counts of the whole window
    packing = True
    on_progress: Callable[[dict[str, Any]], None] | None = None
    held_out: Branch | None = None

    def __init__(
        self,
        student: Student,
        terms: Sequence[Term],
        plan: Plan,
        online: Mapping[str, OnlineTeacher],
        rollouts: Rollouts | None,
        made: TrainingArguments,
        identity: str,
    ):
        super().__init__(model=student.model, args=made, train_dataset=plan)
        self.remove_callback(PrinterCallback)
        self.tokenizer, self.plan, self.online, self.rollouts = student.tokenizer, plan, online, rollouts
        self.memory = None if rollouts is None else Memory(rollouts, made.seed)
        self.terms = [(term, term.bound()) for term in terms]
        self.layers = compared_layers(terms)
        self.kind, self.encoder, self.pooling = student.kind, encodes(student.model), student.pooling
        self.mismatching = sorted({term.on for term in terms if term.mismatches()})
        steps = any("step_labels_N" in term.wants() for term in terms)
        self.spelled = token_bytes(student.tokenizer) if steps else []
        measured = any("squared_distance" in term.wants() for term in terms)
        self.start = trained_weights(student.model) if measured else {}
        # a sharded head cannot be used outside the model's own forward pass
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self.fused = not sharded and worth_fusing(student.model, terms)
        self.pad, self.vocabulary = pad_id(student.tokenizer), addressable(student.tokenizer)
        self.identity, self.totals = identity, Totals([0.0] * len(terms))
        self.objectives = nn.ModuleList(modules_of(term.objective for term in terms))
        self.clock = time.monotonic()
        for teacher in online.values():
            teacher.place(made.device, fused=self.fused)

    def get_train_dataloader(self) -> DataLoader:
        # a generator of its own: a loader draws from the global one, and a resumed training makes one loader more
        order = BatchSampler(SequentialSampler(self.plan), 1, drop_last=False)
        return DataLoader(self.plan, batch_sampler=order, collate_fn=_only, generator=torch.Generator())

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        groups = [group for _, group in zip(range(num_batches), epoch_iterator)]
        for objective in self.objectives:
            if isinstance(objective, Remembers):
                objective.begin_step()
        if self.rollouts is not None:
            self._answer(groups)
        for name in self.mismatching:
            groups = [with_mismatched(group, name) for group in groups]
        batches = [pack(group, pad=self.pad, packing=self.packing) for group in groups]
        across = [teacher for term, _ in self.terms for teacher in term.teachers]
        counts = np.zeros(len(self.terms) + 2 * len(across) + 2)
        for batch in batches:
            counted = [self._counted(term, batch) for term, _ in self.terms]
            compared = [pair for each in counted for pair in each.comparable()]
            numbers = [each.number() for each in counted]
            counts += np.array([*numbers, *chain(*compared), batch.tokens, len(batch.target_ids_N)])
        *divisors, input_tokens, target_tokens = self._summed(counts)
        divisors, compared_with = divisors[: len(self.terms)], divisors[len(self.terms) :]
        for teacher, met, asked in zip(across, compared_with[::2], compared_with[1::2], strict=True):
            self.totals.meet(teacher, met, asked)
        self.totals.input_tokens += int(input_tokens)
        self.totals.target_tokens += int(target_tokens)
        self.totals.steps += 1
        return [{"batch": batch} for batch in batches], divisors

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch: Packed = inputs["batch"]
        shown = self._shown(model, batch)
        offered = {name: self._offered(name, batch, shown) for name in self.plan.branches}
        loss = torch.zeros((), device=self.args.device)
        for number, ((term, objective), count) in enumerate(zip(self.terms, num_items_in_batch)):
            value = objective(*offered[term.on].of(term, self.layers)) / max(count, 1.0)
            self._note(number, term, value)
            loss = loss + term.weight * value
        # the processes' gradients are averaged, and the counts are those of all of them
        return loss * self.accelerator.num_processes

    def _shown(self, model: Any, batch: Packed) -> Shown:
        ids_RC, position_RC, target_RC = (
            self._tensor(array) for array in (batch.ids_RC, batch.position_RC, batch.target_RC)
        )
        if self.kind not in SCORERS:
            return show(model, ids_RC, position_RC, target_RC, layers=self.layers["student"], fused=self.fused)
        if self.kind == "encoder":
            return Shown(vectors_at(model, ids_RC, target_RC, self.pooling), {})
        if self.encoder:
            paired, typed = self.kind != "classifier", types_texts(self.tokenizer)
            return Shown(encoder_scores_at(model, ids_RC, target_RC, paired=paired, typed=typed), {})
        # a class is told behind the prompt; an answer is judged where it stands
        at_RC = target_RC if self.kind == "classifier" else own_positions(target_RC)
        return Shown(scores_at(model, ids_RC, position_RC, at_RC), {})

    def _offered(self, name: str, batch: Packed, shown: Shown) -> GroupArrays | VectorArrays:
        if self.kind == "encoder":
            return VectorArrays(self.plan.branches[name], batch, name, shown.logits_NV, self.online)

        def made(group: str, mismatched: GroupArrays | None = None) -> GroupArrays:
            return GroupArrays(
                group, self.plan.branches[name], batch, shown, self.online, self.vocabulary, self.spelled,
                self._squared_distance, mismatched,
            )  # fmt: skip

        return made(name, made(name + MISMATCHED) if name in self.mismatching else None)

    def _counted(self, term: Term, batch: Packed) -> Counted:
        return Counted(term, batch.items[term.on], self.plan.branches[term.on], self.online, self.spelled)

    def _squared_distance(self) -> Tensor:
        own = self.accelerator.unwrap_model(self.model)
        trained = dict(own.named_parameters())
        return torch.stack([(trained[name] - start).square().sum() for name, start in self.start.items()]).sum()

    def coverage(self) -> dict[str, float]:
        """Of the teachers with another tokenizer, the share of positions at which they could be compared."""
        return {name: met / max(asked, 1.0) for name, (met, asked) in self.totals.met.items()}

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # walks over all parameters for each micro-batch, for a number that nobody reads

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:
            return
        means = [loss / max(self.totals.steps, 1) for loss in self._summed(np.array(self.totals.losses))]
        self.totals.losses, self.totals.steps = [0.0] * len(self.terms), 0
        row = {
            "step": self.state.global_step,
            "loss": sum(term.weight * mean for (term, _), mean in zip(self.terms, means)),
            **{f"loss/{term.label}": mean for (term, _), mean in zip(self.terms, means)},
            **self._mean_reward(),
            **{f"coverage/{name}": share for name, share in self.coverage().items()},
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "input_tokens": self.totals.input_tokens,
            "target_tokens": self.totals.target_tokens,
            "seconds": round(self._seconds(), 3),
        }
        self.totals.history.append(row)
        self.callback_handler.on_log(self.args, self.state, self.control, dict(row))
        if self.on_progress is not None and self.is_world_process_zero():
            self.on_progress(row)

    def _answer(self, groups: list[dict[str, list[Item]]]) -> None:
        """The student's own answers for the whole window, by the weights it starts with."""
        assert self.rollouts is not None
        assert self.memory is not None
        branch, step, seed = self.plan.branches[ROLLOUTS], self.state.global_step, self.args.seed
        if answers := self.memory.again(step):
            for group, items in zip(groups, answers, strict=True):
                group[ROLLOUTS] = items
            return
        self.memory.look(step, self._held_out_loss)
        parted = [self.memory.parted(branch, group[ROLLOUTS], step, self.args.max_steps) for group in groups]
        teacher = None if self.rollouts.teacher is None else self.online[self.rollouts.teacher]
        answered = iter(
            roll_out(
                self.model, self.tokenizer, branch, [item for now, _ in parted for item in now], self.rollouts,
                seed=seed, step=step, fraction=self.memory.fraction, teacher=teacher,
            )
        )  # fmt: skip
        for group, (now, again) in zip(groups, parted):
            fresh = [item for _ in now for item in next(answered)]
            self.memory.keep(fresh)
            group[ROLLOUTS] = [*fresh, *again]
        self._reward(groups)
        if self.rollouts.epochs > 1:
            for group in groups:
                group[ROLLOUTS] = self._as_drawn(group[ROLLOUTS])
            self.memory.window = [group[ROLLOUTS] for group in groups]

    def _as_drawn(self, items: list[Item]) -> list[Item]:
        """The answers with how likely their tokens were, so that later steps can be held against it."""
        batch = pack({"": items}, pad=self.pad, packing=self.packing)
        told = self._told(batch).split([item.targets for item in batch.items[""]])
        return [
            item if item.logprobs is not None else replace(item, logprobs=logprobs.cpu().numpy())
            for item, logprobs in zip(batch.items[""], told, strict=True)
        ]

    @torch.no_grad()
    def _told(self, batch: Packed) -> Tensor:
        """The log-probability of each target."""
        with answering(self.model):
            logits = self._shown(self.model, batch).logits_NV
        target_N = self._tensor(batch.target_ids_N)
        return target_logprobs(logits, target_N, torch.ones(len(target_N), device=target_N.device))

    def _reward(self, groups: list[dict[str, list[Item]]]) -> None:
        """Adds up the rewards of the window, and tells each answer how far its own is above their mean."""
        rewards = [item.reward for group in groups for item in group[ROLLOUTS] if item.own and item.weight]
        self.totals.rewards[0] += sum(rewards)
        self.totals.rewards[1] += len(rewards)
        if self.rollouts is not None and self.rollouts.rewarded:
            total, count = self._summed(np.array([sum(rewards), len(rewards)]))
            mean = total / max(count, 1.0)
            for group in groups:
                group[ROLLOUTS] = [replace(item, advantage=item.reward - mean) for item in group[ROLLOUTS]]

    def _held_out_loss(self) -> float:
        """Mean negative log-likelihood of the answers that are kept out of training."""
        assert self.held_out is not None
        items = [item for place in range(len(self.held_out)) for item in self.held_out.items(place)]
        total = count = 0.0
        for start in range(0, len(items), self.args.per_device_train_batch_size):
            part = items[start : start + self.args.per_device_train_batch_size]
            batch = pack({"": part}, pad=self.pad, packing=self.packing)
            total -= float(self._told(batch).sum())
            count += len(batch.target_ids_N)
        return total / count

    def _mean_reward(self) -> dict[str, float]:
        total, count = self._summed(np.array(self.totals.rewards))
        self.totals.rewards = [0.0, 0.0]
        rewarded = self.rollouts is not None and self.rollouts.rewarded
        return {"reward": total / count} if rewarded and count else {}

    def _note(self, number: int, term: Term, value: Tensor) -> None:
        loss = float(value.detach())
        if not math.isfinite(loss):
            self._not_finite(f"the loss of {term.label}")
        self.totals.losses[number] += loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        # half precision with a scaler skips such steps by itself
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            self._not_finite("the gradient")
        return norm

    def _not_finite(self, what: str) -> None:
        raise RunFailed(
            f"train: {what} is not finite at step {self.state.global_step + 1}; lower learning_rate or look at the "
            f"records of that batch (the last checkpoint is kept in {self.args.output_dir})"
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.args.device)

    def _summed(self, numbers: np.ndarray) -> list[float]:
        """Over all processes."""
        if self.accelerator.num_processes == 1:
            return numbers.tolist()
        # MPS knows no float64; counts of a window are far below what float32 can hold exactly
        return self.accelerator.reduce(torch.from_numpy(numbers).float().to(self.args.device), "sum").tolist()

    def _seconds(self) -> float:
        return self.totals.seconds + time.monotonic() - self.clock

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self.clock = time.monotonic()
        done = super()._inner_training_loop(*args, **kwargs)
        self.totals.seconds = self._seconds()
        return done

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        totals = replace(
            self.totals,
            seconds=self._seconds(),
            losses=self._summed(np.array(self.totals.losses)),
            rewards=self._summed(np.array(self.totals.rewards)),
        )
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()  # every process writes into the folder: none before the old one is gone
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            totals.write(folder, self.identity)
            torch.save(self.objectives.state_dict(), folder / OBJECTIVES)
        if self.memory is not None:
            (folder / MEMORY.format(self.args.process_index)).write_text(json.dumps(self.memory.state()))
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with own_names(self.accelerator.unwrap_model(self.model)):
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        self.objectives.load_state_dict(torch.load(folder / OBJECTIVES, weights_only=True))
        self.totals = Totals.read(folder)
        if self.memory is not None:
            self.memory.load(json.loads((folder / MEMORY.format(self.args.process_index)).read_text()))
        if not self.is_world_process_zero():
            self.totals.losses, self.totals.rewards = [0.0] * len(self.terms), [0.0, 0.0]


def _only(batch: list[Any]) -> Any:
    return batch[0]
