"""Words for comparing texts: lower case, every script; a Chinese, Japanese or Korean character is a word of its own.

ROUGE's usual tokenizer keeps ASCII only, which makes every Chinese text an empty list and every pair of them equal.
"""

import re
import unicodedata

__all__: list[str] = []

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]|(?:(?![\u3040-\u9fff\uac00-\ud7af])[^\W_])+"
)
# of plain text the same words, several times as fast: letters in lower case, a blank for everything else
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128)).encode() + bytes(128)
# curly quotes, dashes, dots in one, a hard blank: they stand between words, in texts that are plain but for them
_MARKS = "\u2019\u2018\u201c\u201d\u2014\u2013\u2026\u00a0"


def words(text: str) -> list[str]:
    plain = text
    if not text.isascii():
        for mark in _MARKS:
            plain = plain.replace(mark, " ")
    if plain.isascii():
        return plain.encode().translate(_ASCII).decode().split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
