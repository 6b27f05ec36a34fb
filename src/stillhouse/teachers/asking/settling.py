"""From a reply to the attempt as it is written down: how it ended, what it cost, what is odd about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stillhouse.errors import TeacherError
from stillhouse.teachers.asking.answers import AnswerStore, AttemptRow
from stillhouse.teachers.asking.budget import Purse, Spent
from stillhouse.teachers.asking.gate import usable
from stillhouse.teachers.asking.wire import Clock, Fault, Price, Reply, WireBackend
from stillhouse.teachers.base import Answer, Failure, Request

__all__ = ["FATAL", "ROW", "Asking", "Settling", "fatal_sentence", "later_sentence", "same_model"]

FATAL = ("quota", "auth", "refused_connection")  # nothing more can be asked
ROW = ("bad_request", "context_overflow", "refused")  # this one request will not be answered


@dataclass
class Settling:
    """What the attempts at one server cost and how they end."""

    backend: WireBackend
    price: Price
    clock: Clock
    teacher: str
    stage: str
    say: Callable[[str], None]
    _known: set[str] = field(default_factory=set)
    _told: set[str] = field(default_factory=set)

    def worst(self, request: Request) -> Spent:
        """The most that one attempt can cost."""
        prompt, output = self.backend.prompt_tokens(request), request.sampling.max_tokens
        return Spent(self.price.cost(prompt, output), prompt + output)

    def ended(
        self, key: str, attempt: int | None, started: float, reply: Reply, worst: Spent, *, transport: str = "online"
    ) -> AttemptRow:
        """The attempt with its outcome. Costs are the server's count; the worst case where it may have been billed and
        nobody said.
        """
        result, flags, served = reply.result, [], ""
        outcome, detail, retry = "answered", "", None
        if isinstance(result, Fault):
            outcome, detail, retry = result.kind, result.detail, result.retry_after_s
        else:
            served = result.served_model
            if isinstance(checked := usable(result), Failure):
                outcome, detail = checked.kind, checked.detail
            if not reply.counted:
                flags.append("cost_estimated")
            if served not in self._known and not self._as_asked(served):
                flags.append("model_mismatch")
                if self.backend.on_model_mismatch == "stop":
                    outcome, detail = "model_mismatch", f"{served} answered"
        usd = self.price.cost(reply.input_tokens, reply.output_tokens, reply.cached_tokens)
        if outcome == "unknown_after_send":
            usd, flags = worst.usd, ["cost_uncertain"]
        answer = replace(result, cost_usd=usd) if isinstance(result, Answer) and outcome == "answered" else None
        return AttemptRow(
            key, outcome, answer, detail, started, self.clock.wall(), transport=transport, attempt=attempt, stage=self.stage,
            http_status=reply.http_status, reserved_usd=worst.usd, retry_after_s=retry, served_model=served,
            fingerprint=reply.fingerprint, provider_id=reply.provider_id, input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens, reasoning_tokens=reply.reasoning_tokens, cached_tokens=reply.cached_tokens,
            settled_usd=usd, flags=",".join(flags), price_id=self.price.id, raw=reply.raw, logprobs=reply.logprobs,
        )  # fmt: skip

    def _as_asked(self, served: str) -> bool:
        """Whether this is the model that was asked; another one is told of once."""
        asked = self.backend.identity().model
        if same_model(asked, served):
            self._known.add(served)
            return True
        if served not in self._told:
            self._told.add(served)
            self.say(f"teacher {self.teacher!r}: {asked!r} was asked and {served!r} answers")
        return False

    def mismatch(self, row: AttemptRow) -> TeacherError:
        """What to raise for an attempt that ended as `model_mismatch`."""
        return TeacherError(
            f"teacher {self.teacher!r}: {self.backend.identity().model!r} was asked and {row.served_model!r} answered; "
            "correct `model`, or accept it with `on_model_mismatch: warn` (the answers keep the name of who gave them)"
        )


@dataclass(eq=False)
class Asking:
    """Who asks whom: one teacher of one run at one server, through one store, out of one purse."""

    backend: WireBackend
    store: AnswerStore
    purse: Purse
    clock: Clock
    settling: Settling
    run: str
    teacher: str
    owner: str
    booked: Callable[[AttemptRow], None]


def same_model(asked: str, served: str) -> bool:
    """Whether the model that says it answered is the one asked: itself, a dated version of it, or what `latest` stands for.

    A folder in front of a name is not part of it. A server that names nobody is not contradicting.
    """
    asked, served = (name.rsplit("/", 1)[-1].lower() for name in (asked, served))
    stem = asked.removesuffix("-latest").removesuffix(":latest")
    if not served or served in (asked, stem):
        return True
    rest = served.removeprefix(stem)
    dated = rest[:1] in "-@:" and rest[1:].replace("-", "").isdigit() and len(rest.replace("-", "")) >= 4
    return served.startswith(stem) and (dated or stem != asked)


def fatal_sentence(teacher: str, url: str, fault: Fault) -> str:
    """Why nothing more can be asked, and what to do about it."""
    what = {
        "auth": "refuses the key, the model name or the settings: check them",
        "quota": "says that the quota or the money is used up: top it up",
        "refused_connection": "cannot be reached: start the server or correct base_url",
    }.get(fault.kind, "does not accept the first request: check the model name and the settings")
    return f"teacher {teacher!r}: {url} {what}, then run again ({fault.detail})"


def later_sentence(teacher: str, url: str, fault: Fault, wall: float) -> str:
    """When it is worth coming back."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(wall + min(fault.retry_after_s or 0.0, 10 * 365 * 86400.0)))
    return f"teacher {teacher!r}: {url} asks to be left alone until {when}; what was answered is kept: run again then"
