"""Where two tokenizers agree about a text, in bytes.

Legend: U tokens of the teacher's vocabulary, V of the student's. Bytes and not characters: byte-level tokens cut
characters in two, and strings made of half a character do not compare.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import RecipeError

Span = tuple[slice, slice]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def aligned_spans(student_tokens: Sequence[bytes], teacher_tokens: Sequence[bytes]) -> list[Span]:
    """The shortest runs of student tokens and teacher tokens that spell the same bytes, in order. Linear in the text.

    Tokens of no bytes (an end of turn) go with the run they follow, at the start with the first. Raises RecipeError
    where the two do not spell the same text.
    """
    if b"".join(student_tokens) != b"".join(teacher_tokens):
        raise RecipeError("the two tokenizations spell different texts: render both from the same response")
    student_ends, teacher_ends = _ends(student_tokens), _ends(teacher_tokens)
    common = sorted(set(student_ends) & set(teacher_ends) - {0})
    spans, s, t = [], 0, 0
    for end in common:
        s_next, t_next = _past(student_ends, s, end), _past(teacher_ends, t, end)
        spans.append((slice(s, s_next), slice(t, t_next)))
        s, t = s_next, t_next
    return spans


def part_ends(text: str, parts: Sequence[str], tokens: Sequence[bytes]) -> list[int]:
    """The token in which each of `parts` ends, which follow each other in `text`; `tokens` spell it."""
    # some tokenizers put a blank before the first word
    blank = int(b"".join(tokens).startswith(b" ") and not text.startswith(" "))
    ends_T = list(accumulate(len(token) for token in tokens))
    found, at = [], 0
    for part in parts:
        at = text.find(part.strip(), at) + len(part.strip())
        found.append(bisect_left(ends_T, len(text[:at].encode()) + blank))
    return found


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes that each id of a Hugging Face tokenizer stands for; special tokens stand for none."""
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    spell = _spell_byte_level if _is_byte_level(tokens) else _spell_sentencepiece
    return [b"" if i in special or token is None else spell(token) for i, token in enumerate(tokens)]


def matched_ids(student_bytes: Sequence[bytes], teacher_bytes: Sequence[bytes]) -> Tensor:
    """[U]: the student's id with the same bytes, or -1."""
    known = {spelled: i for i, spelled in reversed(list(enumerate(student_bytes))) if spelled}
    return torch.tensor([known.get(spelled, -1) for spelled in teacher_bytes])


def first_ids(student_bytes: Sequence[bytes], teacher_bytes: Sequence[bytes]) -> Tensor:
    """[U]: the student's id with the same bytes, or else the longest one that begins them; -1 where there is none.

    What a student emits first when it goes on to spell the teacher's token, by the longest match.
    """
    known = {spelled: i for i, spelled in reversed(list(enumerate(student_bytes))) if spelled}

    def first(spelled: bytes) -> int:
        prefixes = (spelled[:length] for length in range(len(spelled), 0, -1))
        return next((known[prefix] for prefix in prefixes if prefix in known), -1)

    return torch.tensor([first(spelled) for spelled in teacher_bytes])


def _ends(tokens: Sequence[bytes]) -> list[int]:
    ends, at = [], 0
    for token in tokens:
        at += len(token)
        ends.append(at)
    return ends


def _past(ends: list[int], start: int, end: int) -> int:
    while start < len(ends) and ends[start] <= end:
        start += 1
    return start


def _is_byte_level(tokens: Sequence[str | None]) -> bool:
    """Byte-level vocabularies write a space as the letter that stands for byte 32."""
    return any(token and token.startswith("Ġ") for token in tokens)


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level BPE writes for each byte: itself where it prints, else the next one from 256 on."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in prints}
    hidden = [b for b in range(256) if b not in set(prints)]
    return letters | {chr(256 + i): b for i, b in enumerate(hidden)}


_LETTERS = _byte_letters()


def _spell_byte_level(token: str) -> bytes:
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode()  # an added token, kept as text


def _spell_sentencepiece(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
