"""Do the books balance: what the store must satisfy at any time that nothing is in flight."""

import hashlib
import math
import re
import zlib
from dataclasses import asdict
from typing import Any

from stillhouse.teachers.asking.answers import AnswerStore
from stillhouse.teachers.asking.budget import Spent

__all__ = ["audit", "repeated", "spending", "spent_before", "trail"]

_LEDGER = """
SELECT s.run, s.teacher, s.attempts, s.input_tokens, s.output_tokens, s.usd,
       count(a.id), total(a.input_tokens), total(a.output_tokens), total(a.settled_usd)
FROM spend s LEFT JOIN attempt a ON a.run = s.run AND a.teacher = s.teacher AND a.outcome != 'in_flight'
GROUP BY s.run, s.teacher
"""


def audit(store: AnswerStore, *, run: str | None = None, deep: bool = False) -> list[str]:
    """One sentence for each thing that does not add up; an empty list where the books balance.

    Of one `run`, or of the whole store.

    The attempts of each run and teacher sum to its ledger; each answer has its attempt, and no cut-off one is among them;
    nothing is left in flight. `deep` also reads every request back and compares it with its key.
    """
    findings = []
    for of, teacher, *numbers in store.rows(_LEDGER):
        if run not in (None, of):
            continue
        names = ("attempts", "input tokens", "output tokens", "dollars")
        for name, booked, summed in zip(names, numbers[:4], numbers[4:]):
            if not math.isclose(booked, summed, rel_tol=1e-9, abs_tol=1e-9):
                findings.append(f"run {of}, teacher {teacher}: the ledger says {booked} {name}, the attempts {summed}")
    for sentence, sql in _CHECKS.items():
        only = "" if run is None else " AND a.run = ?"
        if number := store.rows(sql + only, [] if run is None else [run])[0][0]:
            findings.append(sentence.format(number))
    if run is None:
        findings += [text.format(number) for text, sql in _STORE.items() if (number := store.rows(sql)[0][0])]
    return findings + (_damaged(store) if deep else [])


_CHECKS = {
    "{} attempts belong to no run in the ledger": "SELECT count(*) FROM attempt a WHERE outcome != 'in_flight' AND NOT "
    "EXISTS (SELECT 1 FROM spend s WHERE s.run = a.run AND s.teacher = a.teacher)",
    "{} attempts are in flight": "SELECT count(*) FROM attempt a WHERE outcome = 'in_flight'",
    "{} attempts belong to no request": "SELECT count(*) FROM attempt a WHERE NOT EXISTS (SELECT 1 FROM request r "
    "WHERE r.key = a.key)",
    "{} answered attempts gave no answer": "SELECT count(*) FROM attempt a WHERE outcome = 'answered' AND NOT EXISTS "
    "(SELECT 1 FROM answer b WHERE b.key = a.key)",
    "{} answers were cut off or refused": "SELECT count(*) FROM answer b JOIN attempt a ON a.id = b.attempt "
    "WHERE b.finish_reason NOT IN ('stop', 'tool_calls')",
    "{} settled lines of batches have no attempt": "SELECT count(*) FROM batch_item i JOIN batch_job a "
    "ON a.local_id = i.local_id WHERE i.attempt IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempt t WHERE t.id = i.attempt "
    "AND t.key = i.key)",
    "{} batches were settled with lines left over": "SELECT count(DISTINCT a.local_id) FROM batch_job a JOIN batch_item i "
    "ON a.local_id = i.local_id WHERE a.state = 'collected' AND i.attempt IS NULL",
}
_STORE = {
    "{} answers come from no answered attempt": "SELECT count(*) FROM answer WHERE NOT EXISTS (SELECT 1 FROM attempt a "
    "WHERE a.id = answer.attempt AND a.key = answer.key AND a.outcome = 'answered')",
}


def _damaged(store: AnswerStore) -> list[str]:
    wrong = 0
    last = ""
    while rows := store.rows("SELECT key, body FROM request WHERE key > ? ORDER BY key LIMIT 1000", [last]):
        last = rows[-1][0]
        wrong += sum(hashlib.sha256(zlib.decompress(body)).hexdigest() != key for key, body in rows)
    return [f"{wrong} requests do not match their key"] if wrong else []


def spending(store: AnswerStore, run: str) -> list[dict[str, Any]]:
    """What a run cost: a row for each teacher, stage, transport and outcome, with its attempts, tokens and dollars.

    `uncertain_usd` may or may not have been billed (a reply that never came, booked at its worst case).
    """
    names = ("teacher", "stage", "transport", "outcome")
    sql = (
        f"SELECT {', '.join(names)}, count(*), sum(input_tokens), sum(output_tokens), total(settled_usd), "
        "total(CASE WHEN flags LIKE '%cost_uncertain%' THEN settled_usd END) FROM attempt "
        "WHERE run = ? AND outcome != 'in_flight' GROUP BY 1, 2, 3, 4"
    )
    numbers = ("attempts", "input_tokens", "output_tokens", "usd", "uncertain_usd")
    return [dict(zip((*names, *numbers), row)) for row in store.rows(sql, [run])]


def spent_before(store: AnswerStore, run: str, *, teacher: str | None = None, stage: str | None = None) -> Spent:
    """What a run has spent so far: in all, on one teacher, or in one stage, the earlier rounds of which count too."""
    if stage is None:
        mine = "" if teacher is None else " AND teacher = ?"
        sql = f"SELECT total(usd), total(input_tokens + output_tokens), total(attempts) FROM spend WHERE run = ?{mine}"
        rows = store.rows(sql, [run] if teacher is None else [run, teacher])
    else:
        sql = (
            "SELECT total(settled_usd), total(input_tokens + output_tokens), count(*), stage FROM attempt "
            "WHERE run = ? AND outcome != 'in_flight' GROUP BY stage"
        )
        rows = [row[:3] for row in store.rows(sql, [run]) if _whole_stage(row[3]) == _whole_stage(stage)]
    return sum((Spent(usd, int(tokens), int(attempts)) for usd, tokens, attempts in rows), Spent(requests=0))


def _whole_stage(stage: str) -> str:
    return re.sub(r"/round-\d+/", "/", stage)


def repeated(store: AnswerStore, run: str) -> tuple[int, float]:
    """(attempts, dollars) of a run beyond the first for the same request: what failures cost."""
    sql = (
        "SELECT count(*), total(settled_usd) FROM attempt a WHERE run = ? AND outcome != 'in_flight' AND EXISTS "
        "(SELECT 1 FROM attempt b WHERE b.key = a.key AND b.run = a.run AND b.id < a.id)"
    )
    number, usd = store.rows(sql, [run])[0]
    return number, usd


def trail(store: AnswerStore, key: str) -> dict[str, Any] | None:
    """Everything the store knows about one request, for `still why`: the request, its attempts, its answer."""
    request = store.rows("SELECT body, created FROM request WHERE key = ?", [key])
    if not request:
        return None
    columns = (
        "run, teacher, transport, started, finished, outcome, detail, http_status, served_model, fingerprint, provider_id, "
        "input_tokens, output_tokens, reasoning_tokens, cached_tokens, reserved_usd, settled_usd, flags, price_id"
    )
    attempts = store.rows(f"SELECT {columns} FROM attempt WHERE key = ? ORDER BY id", [key])
    known = store.known([key]).get(key)
    return {
        "key": key,
        "request": zlib.decompress(request[0][0]).decode("utf-8"),
        "attempts": [dict(zip(columns.split(", "), row)) for row in attempts],
        "answer": asdict(known.answer) if known and known.answer else None,
    }
