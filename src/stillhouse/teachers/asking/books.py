"""Do the books balance: what the store must satisfy at any time that nothing is in flight."""

import hashlib
import math
import zlib
from typing import Any

from stillhouse.teachers.asking.answers import AnswerStore

__all__ = ["audit", "price_of_run", "trail"]

_LEDGER = """
SELECT s.run, s.teacher, s.attempts, s.input_tokens, s.output_tokens, s.usd,
       count(a.id), total(a.input_tokens), total(a.output_tokens), total(a.settled_usd)
FROM spend s LEFT JOIN attempt a ON a.run = s.run AND a.teacher = s.teacher AND a.outcome != 'in_flight'
GROUP BY s.run, s.teacher
"""


def audit(store: AnswerStore, *, deep: bool = False) -> list[str]:
    """One sentence for each thing that does not add up; an empty list where the books balance.

    The attempts of each run and teacher sum to its ledger; each answer has its attempt, and no cut-off one is among them;
    nothing is left in flight. `deep` also reads every request back and compares it with its key.
    """
    findings = []
    for run, teacher, *numbers in store.rows(_LEDGER):
        names = ("attempts", "input tokens", "output tokens", "dollars")
        for name, booked, summed in zip(names, numbers[:4], numbers[4:]):
            if not math.isclose(booked, summed, rel_tol=1e-9, abs_tol=1e-9):
                findings.append(f"run {run}, teacher {teacher}: the ledger says {booked} {name}, the attempts {summed}")
    for sentence, sql in _CHECKS.items():
        if number := store.rows(sql)[0][0]:
            findings.append(sentence.format(number))
    return findings + (_damaged(store) if deep else [])


_CHECKS = {
    "{} attempts belong to no run in the ledger": "SELECT count(*) FROM attempt a WHERE outcome != 'in_flight' AND NOT "
    "EXISTS (SELECT 1 FROM spend s WHERE s.run = a.run AND s.teacher = a.teacher)",
    "{} attempts are in flight": "SELECT count(*) FROM attempt WHERE outcome = 'in_flight'",
    "{} attempts belong to no request": "SELECT count(*) FROM attempt WHERE key NOT IN (SELECT key FROM request)",
    "{} answers come from no answered attempt": "SELECT count(*) FROM answer WHERE NOT EXISTS (SELECT 1 FROM attempt a "
    "WHERE a.id = answer.attempt AND a.key = answer.key AND a.outcome = 'answered')",
    "{} answered attempts gave no answer": "SELECT count(*) FROM attempt WHERE outcome = 'answered' AND key NOT IN "
    "(SELECT key FROM answer)",
    "{} answers were cut off or refused": "SELECT count(*) FROM answer WHERE finish_reason NOT IN ('stop', 'tool_calls')",
}


def _damaged(store: AnswerStore) -> list[str]:
    wrong = 0
    last = ""
    while rows := store.rows("SELECT key, body FROM request WHERE key > ? ORDER BY key LIMIT 1000", [last]):
        last = rows[-1][0]
        wrong += sum(hashlib.sha256(zlib.decompress(body)).hexdigest() != key for key, body in rows)
    return [f"{wrong} requests do not match their key"] if wrong else []


def price_of_run(store: AnswerStore, run: str) -> dict[str, dict[str, Any]]:
    """What each teacher cost in a run: attempts by outcome, tokens, dollars, and how many dollars are uncertain."""
    found: dict[str, dict[str, Any]] = {}
    sql = (
        "SELECT teacher, outcome, count(*), sum(input_tokens), sum(output_tokens), total(settled_usd), "
        "total(CASE WHEN flags LIKE '%cost_uncertain%' THEN settled_usd END) FROM attempt WHERE run = ? GROUP BY 1, 2"
    )
    for teacher, outcome, number, input_tokens, output_tokens, usd, uncertain in store.rows(sql, [run]):
        of = found.setdefault(
            teacher, {"attempts": {}, "input_tokens": 0, "output_tokens": 0, "usd": 0.0, "uncertain_usd": 0.0}
        )
        of["attempts"][outcome] = number
        of["input_tokens"] += input_tokens
        of["output_tokens"] += output_tokens
        of["usd"] += usd
        of["uncertain_usd"] += uncertain
    return found


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
        "answer": known.answer if known else None,
    }
