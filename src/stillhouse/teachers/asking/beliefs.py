"""Log-probabilities of a response as a server tells them: checked token by token, and as bytes for the store.

Shapes: T tokens of the response, K kept tokens.
"""

import zlib
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from stillhouse.teachers.asking.wire import Fault
from stillhouse.teachers.base import TokenBeliefs

__all__ = ["beliefs_of", "own_beliefs", "packed", "read_prompt_logprobs"]


_ROUNDING = 1e-3  # a probability of 1 in half precision


def read_prompt_logprobs(entries: Any, ids: Sequence[int], start: int, k: int) -> TokenBeliefs | Fault:
    """The beliefs about `ids[start:]` from a reply's `prompt_logprobs`: one {token id: {logprob}} for each prompt token.

    The server must have read the very tokens that were sent: an entry without its own token is a fault, because then
    its tokenizer or its template is another one and every row would be about other words.
    """
    if not isinstance(entries, list) or len(entries) != len(ids):
        found = len(entries) if isinstance(entries, list) else "no"
        return Fault("bad_request", f"{len(ids)} tokens were sent, the reply tells of {found}")
    top_ids, top = [], []
    for place in range(start, len(ids)):
        entry = entries[place]
        if not isinstance(entry, dict) or str(ids[place]) not in entry:
            return Fault("bad_request", f"the server read another token at place {place} than {ids[place]}")
        try:
            ranked = sorted(((float(value["logprob"]), int(token)) for token, value in entry.items()), reverse=True)
        except (KeyError, TypeError, ValueError):
            return Fault("protocol", f"what the reply tells of place {place} is no log-probability of a token")
        if any(not isfinite(told) or told > _ROUNDING or not 0 <= token < 2**31 for told, token in ranked):
            return Fault("protocol", f"the reply tells a log-probability at place {place} that cannot be one")
        if len(ranked) < k:
            return Fault(
                "bad_request", f"{k} log-probabilities were asked for, {len(ranked)} came; the server caps them"
            )
        top_ids.append([token for _, token in ranked[:k]])
        top.append([logprob for logprob, _ in ranked[:k]])
    shape = (len(top), k)
    return TokenBeliefs(
        np.asarray(ids[start:], dtype=np.int32),
        np.asarray(top_ids, dtype=np.int32).reshape(shape),
        np.asarray(top, dtype=np.float32).reshape(shape),
    )


def own_beliefs(entries: Any, written: Sequence[int], read: Sequence[int], k: int) -> TokenBeliefs | Fault | None:
    """The beliefs about the tokens of an answer as they were `written`, told in the same form; `read` is what the tokenizer
    makes of its text, end of turn included. None where the two are not the same: a student would learn at other places.
    """
    if list(written) != list(read):
        return None
    return read_prompt_logprobs(entries, written, 0, k)


def packed(beliefs: TokenBeliefs) -> bytes:
    """Bytes for the store: two counts, then the three arrays."""
    T, K = beliefs.top_ids_TK.shape
    arrays = (
        beliefs.token_ids_T.astype("<i4"),
        beliefs.top_ids_TK.astype("<i4"),
        beliefs.top_logprobs_TK.astype("<f4"),
    )
    return zlib.compress(np.array([T, K], dtype="<i4").tobytes() + b"".join(array.tobytes() for array in arrays), 6)


def beliefs_of(data: bytes) -> TokenBeliefs:
    """What `packed` was given."""
    raw = zlib.decompress(data)
    T, K = (int(number) for number in np.frombuffer(raw, "<i4", 2))
    token_ids_T = np.frombuffer(raw, "<i4", T, 8)
    top_ids_TK = np.frombuffer(raw, "<i4", T * K, 8 + 4 * T).reshape(T, K)
    top_logprobs_TK = np.frombuffer(raw, "<f4", T * K, 8 + 4 * T + 4 * T * K).reshape(T, K)
    return TokenBeliefs(token_ids_T, top_ids_TK, top_logprobs_TK)
