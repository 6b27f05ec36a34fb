"""Words for comparing texts: lower case, every script; a Chinese, Japanese or Korean character is a word of its own.

ROUGE's usual tokenizer keeps ASCII only, which makes every Chinese text an empty list and every pair of them equal.
"""

import re
import unicodedata
from functools import cache

__all__: list[str] = []

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]|(?:(?![\u3040-\u9fff\uac00-\ud7af])[^\W_])+"
)
# of plain text the same words, several times as fast: letters in lower case, a blank for everything else
_PLAIN = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128)).encode()
TO_WORDS = _PLAIN + bytes(range(128, 256))
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_FEW = 16  # different characters that are replaced one after the other; with more, the pattern is faster
_CLINGING = {*range(0x1100, 0x1200), *range(0xF900, 0xFB00)}  # letters that are joined with their neighbours


def words(text: str) -> list[str]:
    return written(text).translate(TO_WORDS).decode().split()


def written(text: str) -> bytes:
    """The text as UTF-8 in which `TO_WORDS` makes the words, and a blank of everything between them."""
    if text.isascii():
        return text.encode()
    foreign = set(_FOREIGN.findall(text))
    folded = [_folded(character) for character in foreign] if len(foreign) <= _FEW else [None]
    if None in folded:
        return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold())).encode()
    for character, stands in zip(foreign, folded, strict=True):
        text = text.replace(character, stands)  # type: ignore[arg-type]
    return text.encode()


@cache
def _folded(character: str) -> str | None:
    """What the words hold of a character wherever it stands; None where that depends on what stands before it."""
    whole = unicodedata.normalize("NFKC", character).casefold()
    if any(unicodedata.category(each).startswith("M") or ord(each) in _CLINGING for each in whole):
        return None
    # a character of which two in a row are two words stands by itself
    return "".join(
        [f" {each} " if len(_WORD.findall(each * 2)) == 2 else each if _WORD.match(each) else " " for each in whole]
    )
