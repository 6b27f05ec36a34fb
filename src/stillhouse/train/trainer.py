"""One subclass of transformers.Trainer, blind to the method: objectives return sums, and they are divided here, once.

The batches of a whole accumulation window are made before its first backward pass, the student's own answers among
them. What each objective's sum is divided by, the target positions of nonzero weight, is counted over that window and
over all processes. So a step is the same however its examples are cut into micro-batches.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from stillhouse.errors import RecipeError, RunFailed
from stillhouse.kernels.beliefs import TopK
from stillhouse.records import Lost, Record
from stillhouse.render import addressable, pad_id
from stillhouse.train.batch import Item, Packed, pack, stored_beliefs
from stillhouse.train.forward import forward_targets, packs_sequences
from stillhouse.train.online import OnlineTeacher
from stillhouse.train.plan import Plan
from stillhouse.train.resume import OBJECTIVES, Totals, identity_of, resume_point
from stillhouse.train.rollout import Rollouts, roll_out
from stillhouse.train.settings import batch_size, known_arguments, schedule, settings
from stillhouse.train.student import Student, quiet
from stillhouse.train.terms import ROLLOUTS, Term, branches, check

__all__ = ["Rollouts", "Term", "Trained", "known_arguments", "train"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did. `history` has the rows given to `on_progress`; `left_out` the records it could not use."""

    steps: int
    input_tokens: int
    target_tokens: int
    seconds: float
    history: list[dict[str, Any]]
    left_out: list[Lost]


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
    packing: bool = True,
    max_length: int | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Trains the student in place by the weighted sum of `terms` (Eq. 2), and says what was done.

    Each micro-batch holds `per_device_train_batch_size` records of every branch that a term reads. Checkpoints lie in
    `out`; called again with the same inputs it goes on from the last one, to the same weights. `max_length` defaults to
    the student's context; longer records are left out. Raises RecipeError for what cannot be right, RunFailed for a
    loss that is not finite (the last checkpoint stays).
    """
    max_length = _longest(student, max_length)
    found = branches(student.tokenizer, terms, data, rollouts, max_length)
    check(terms, found, teachers, rollouts)
    made = settings(arguments, Path(out), seed)
    length = schedule(made, {name: len(branch) for name, branch in found.items()})
    plan = Plan(found, seed=seed, length=length, size=batch_size(made), rank=made.process_index, world=made.world_size)
    named = sorted({term.teacher for term in terms if term.teacher is not None and term.judges()})
    online = {name: OnlineTeacher(name, teachers[name], student.tokenizer) for name in named}
    identity = identity_of(student.model, terms, found, arguments, seed, rollouts, packing, max_length)
    with quiet(), _lent(student.model, [term.objective for term in terms]):
        trainer = _Trainer(student, terms, plan, online, rollouts, made, identity)
        trainer.packing = packing and packs_sequences(student.model)
        trainer.on_progress = on_progress
        checkpoint = resume_point(Path(out), identity)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    totals = trainer.totals
    lost = [lost for branch in found.values() for lost in branch.lost]
    return Trained(made.max_steps, totals.input_tokens, totals.target_tokens, totals.seconds, totals.history, lost)


class _Trainer(Trainer):
    loss_is_scaled_for_ga = True  # divided by the counts of the whole window
    packing = True
    on_progress: Callable[[dict[str, Any]], None] | None = None

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
        self.terms = [(term, term.wants(), term.bound()) for term in terms]
        self.pad, self.vocabulary = pad_id(student.tokenizer), addressable(student.tokenizer)
        self.identity, self.totals = identity, Totals([0.0] * len(terms))
        self.objectives = nn.ModuleList(_modules(term.objective for term in terms))
        self.clock = time.monotonic()
        for teacher in online.values():
            teacher.place(made.device)

    def get_train_dataloader(self) -> DataLoader:
        # a generator of its own: a loader draws from the global one, and a resumed training makes one loader more
        order = BatchSampler(SequentialSampler(self.plan), 1, drop_last=False)
        return DataLoader(self.plan, batch_sampler=order, collate_fn=_only, generator=torch.Generator())

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        groups = [group for _, group in zip(range(num_batches), epoch_iterator)]
        if self.rollouts is not None:
            self._answer(groups)
        batches = [pack(group, pad=self.pad, packing=self.packing) for group in groups]
        counts = np.zeros(len(self.terms) + 2)
        for batch in batches:
            eligible = [int(np.count_nonzero(self._weights(term, batch))) for term, *_ in self.terms]
            counts += np.array([*eligible, batch.tokens, len(batch.target_ids_N)])
        *divisors, input_tokens, target_tokens = self._summed(counts)
        self.totals.input_tokens += int(input_tokens)
        self.totals.target_tokens += int(target_tokens)
        self.totals.steps += 1
        return [{"batch": batch} for batch in batches], divisors

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch: Packed = inputs["batch"]
        logits_NV = forward_targets(
            model, self._tensor(batch.ids_RC), self._tensor(batch.position_RC), self._tensor(batch.target_RC)
        )
        beliefs: dict[tuple[str | None, str], Any] = {}
        loss = torch.zeros((), device=logits_NV.device)
        for number, ((term, wants, objective), count) in enumerate(zip(self.terms, num_items_in_batch)):
            part = batch.parts[term.on]
            offered = {
                "student_logits_NV": logits_NV[part] if len(batch.parts) > 1 else logits_NV,
                "target_ids_N": self._tensor(batch.target_ids_N[part]),
                "weight_N": self._tensor(self._weights(term, batch)),
            }
            if "teacher_beliefs" in wants:
                key = term.teacher, term.on
                offered["teacher_beliefs"] = beliefs[key] = beliefs.get(key) or self._beliefs(term, batch)
            value = objective(*(offered[name] for name in wants)) / max(count, 1.0)
            self._note(number, term, value)
            loss = loss + term.weight * value
        # the processes' gradients are averaged, and the counts are those of all of them
        return loss * self.accelerator.num_processes

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # walks over all parameters for each micro-batch, for a number that nobody reads

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:
            return
        means = [loss / max(self.totals.steps, 1) for loss in self._summed(np.array(self.totals.losses))]
        self.totals.losses, self.totals.steps = [0.0] * len(self.terms), 0
        row = {
            "step": self.state.global_step,
            "loss": sum(term.weight * mean for (term, *_), mean in zip(self.terms, means)),
            **{f"loss/{term.label}": mean for (term, *_), mean in zip(self.terms, means)},
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
        items = [item for group in groups for item in group[ROLLOUTS]]
        branch = self.plan.branches[ROLLOUTS]
        answered = iter(
            roll_out(
                self.model,
                self.tokenizer,
                branch,
                items,
                self.rollouts,
                seed=self.args.seed,
                step=self.state.global_step,
            )
        )
        for group in groups:
            group[ROLLOUTS] = [next(answered) for _ in group[ROLLOUTS]]

    def _weights(self, term: Term, batch: Packed) -> np.ndarray:
        part = batch.parts[term.on]
        weight_N = batch.weight_N[part]
        if term.weight_column is not None:
            column = self.plan.branches[term.on].weights[term.weight_column]
            items = batch.items[term.on]
            weight_N = weight_N * np.repeat(column[[item.index for item in items]], [item.targets for item in items])
        if term.on == ROLLOUTS and not term.judges():
            weight_N = np.where(batch.own_N[part], np.float32(0), weight_N)
        return weight_N

    def _beliefs(self, term: Term, batch: Packed) -> Any:
        branch = self.plan.branches[term.on]
        if term.teacher is not None:
            return self.online[term.teacher].beliefs(term.on, branch, batch)
        ids_NK, logprobs_NK = stored_beliefs(branch, batch.items[term.on])
        return TopK(self._tensor(ids_NK), self._tensor(logprobs_NK), vocabulary=self.vocabulary)

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
        totals = replace(self.totals, seconds=self._seconds(), losses=self._summed(np.array(self.totals.losses)))
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            totals.write(folder, self.identity)
            torch.save(self.objectives.state_dict(), folder / OBJECTIVES)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        self.objectives.load_state_dict(torch.load(folder / OBJECTIVES, weights_only=True))
        self.totals = Totals.read(folder)
        if not self.is_world_process_zero():
            self.totals.losses = [0.0] * len(self.terms)


@contextmanager
def _lent(model: Any, objectives: Sequence[Any]) -> Iterator[None]:
    """The model with the objectives' own parameters hung on it, so that they are trained and shared like its own."""
    use_cache = model.config.use_cache
    names = {f"stillhouse_objective_{number}": module for number, module in enumerate(_modules(objectives))}
    for name, module in names.items():
        model.add_module(name, module)
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)
        model.config.use_cache = use_cache
        model.eval()


def _modules(objectives: Any) -> list[nn.Module]:
    return [objective for objective in objectives if isinstance(objective, nn.Module)]


def _only(batch: list[Any]) -> Any:
    return batch[0]


def _longest(student: Student, max_length: int | None) -> int | None:
    window = getattr(student.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if max_length is not None and window is not None and max_length > window:
        raise RecipeError(f"train.max_length: {max_length} is more than the student's context of {window} tokens")
    return max_length if max_length is not None else window
