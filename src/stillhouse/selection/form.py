"""Form: texts that cannot teach anything, whatever they say."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from stillhouse.errors import RecipeError
from stillhouse.records import Record
from stillhouse.selection.texts import Side, instruction_text, prompt_text, responses, text_of
from stillhouse.selection.tokens import words

__all__ = ["echo", "ending", "instruction", "language", "leaked", "loops", "refusal"]

# what a model that reads and writes text only cannot be asked for
NOT_TEXT = ("image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot")
_NOT_TEXT_PHRASES = ("go to",)

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)(?: very| so| really)? sorry|i apologi[sz]e|my apologies|unfortunately,? i)\b"
    r"|\bi (?:can(?:no|')t|am (?:not able|unable)|will not|won't|must decline|do not feel comfortable)\b"
    r"|\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b",
    re.I,
)
_ENDINGS = tuple(".!?\"')]}»”’…。！？」』`*:|$")

# the words that make up most of running text in each language
_FUNCTION_WORDS = {
    "en": "the of and to in is that it for was on are with as be at this have from or by not but what you",
    "de": "der die und das ist nicht zu den mit von ein eine es im auf dem für sich auch als wird sind bei",
    "fr": "le la les et des est un une du que en dans pour qui pas sur au avec ce il sont plus par se",
    "es": "el la los las que y en es un una por con para del no se su al lo como más pero son este",
    "it": "il che di la è un una per in non con sono del le si da come più gli della nel anche i al",
    "pt": "o que de a do da em um uma para é com não os as no na por se mais dos como ao foi",
    "nl": "de het een en van is dat niet op te voor met zijn er aan ook als bij maar om naar dan wordt",
}
_PROFILES = {language: frozenset(text.split()) for language, text in _FUNCTION_WORDS.items()}
_SCRIPTS = {
    "zh": "CJK",
    "ja": "HIRAGANA",
    "ko": "HANGUL",
    "ru": "CYRILLIC",
    "ar": "ARABIC",
    "el": "GREEK",
    "he": "HEBREW",
}
_SCRIPTS |= {"hi": "DEVANAGARI", "th": "THAI"}


def instruction(
    records: Iterable[Record],
    *,
    min_words: int = 4,
    max_words: int = 150,
    forbidden: Sequence[str] = (*NOT_TEXT, *_NOT_TEXT_PHRASES),
) -> Iterator[tuple[Record, str | None]]:
    """Keeps instructions that a model of text can follow.

    Reasons: "too_few_words", "too_many_words"; "asks_for:<word>" for a forbidden word or phrase; "asks_for_program"
    for one that begins "write a program" (no language is named and nothing runs it); "odd_start" where the first
    character is neither a letter nor a digit nor an opening quote. Sources: R01 (bounds 3 < words <= 150), R02, R12.
    """
    looked_for = {phrase: tuple(words(phrase)) for phrase in forbidden}
    for record in records:
        text = instruction_text(record).strip()
        yield record, _instruction_fault(text, words(text), min_words, max_words, looked_for)


def _instruction_fault(
    text: str, tokens: list[str], least: int, most: int, forbidden: dict[str, tuple[str, ...]]
) -> str | None:
    if len(text.split()) < least and len(tokens) < least:
        return "too_few_words"
    if len(text.split()) > most:
        return "too_many_words"
    for phrase, parts in forbidden.items():
        if any(tuple(tokens[i : i + len(parts)]) == parts for i in range(len(tokens) - len(parts) + 1)):
            return f"asks_for:{phrase}"
    if tokens[:3] == ["write", "a", "program"]:
        return "asks_for_program"
    return None if text[0].isalnum() or text[0] in "\"'“«" else "odd_start"


def refusal(records: Iterable[Record], *, max_words: int = 80) -> Iterator[tuple[Record, str | None]]:
    """Drops answers that refuse or apologise instead of answering.

    A response is a refusal when an apology or a statement of being unable stands in its first 200 characters and it
    is shorter than `max_words` (a long answer that begins with an apology still answers). English only. Reason:
    "refusal". Sources: R04 ("sorry" in fewer than 80 words), R09.
    """
    for record in records:
        refused = any(_REFUSAL.search(text[:200]) and len(text.split()) < max_words for text in responses(record))
        yield record, "refusal" if refused else None


def ending(records: Iterable[Record], *, min_words: int = 12) -> Iterator[tuple[Record, str | None]]:
    """Drops responses that look cut off: unbalanced code fences or brackets, or no closing mark after many words.

    Texts below `min_words` words and lines that end in a number or a list item pass: short answers need no full stop.
    Reasons: "open_fence", "open_bracket", "no_sentence_end". Source: R01, R60 (truncation), bad input 26 of the
    parser's table.
    """
    for record in records:
        faults = (_ending_fault(text.rstrip(), min_words) for text in responses(record))
        yield record, next((fault for fault in faults if fault), None)


def _ending_fault(text: str, min_words: int) -> str | None:
    if text.count("```") % 2:
        return "open_fence"
    prose = re.sub(r"```.*?```|[:;][()-]|\b\w\)", "", text, flags=re.S)  # code, smileys and "a)" open nothing
    if any(prose.count(a) > prose.count(b) for a, b in ("()", "[]", "{}")):
        return "open_bracket"
    last_line = text.splitlines()[-1] if text else ""
    if len(text.split()) < min_words or text.endswith(_ENDINGS) or re.search(r"\d\W*$", text):
        return None
    return None if re.match(r"\s*(?:[-*•]|\d+[.)])\s", last_line) else "no_sentence_end"


def leaked(
    records: Iterable[Record], *, phrases: Sequence[str], on: Side = "both"
) -> Iterator[tuple[Record, str | None]]:
    """Drops records that repeat words of the prompt they were made with (a section title, a rule, an exemplar).

    Compared word by word, ignoring case and punctuation. Reason: "leaked:<phrase>". Sources: R04 (d), R40.
    """
    if not phrases:
        raise RecipeError("form.leaked: phrases is empty; list the words that only the elicitation prompt holds")
    wanted = {phrase: f" {' '.join(words(phrase))} " for phrase in phrases}
    for record in records:
        text = f" {' '.join(words(text_of(record, on)))} "
        yield record, next((f"leaked:{phrase}" for phrase, part in wanted.items() if part in text), None)


def echo(records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
    """Drops responses that repeat their prompt, hold nothing but punctuation and function words, or end in a colon.

    Reasons: "echo", "says_nothing", "ends_with_colon". Sources: R01 (input equals output, trailing colon), R04 (c),
    R40.
    """
    filler = frozenset().union(*_PROFILES.values())
    for record in records:
        asked = words(prompt_text(record.prompt)), words(instruction_text(record))
        yield record, next((fault for text in responses(record) if (fault := _echo_fault(text, asked, filler))), None)


def _echo_fault(text: str, asked: tuple[list[str], list[str]], filler: frozenset[str]) -> str | None:
    tokens = words(text)
    if tokens and tokens in asked:
        return "echo"
    if not set(tokens) - filler and len(tokens) != 1:  # a one-word answer ("no") says something
        return "says_nothing"
    return "ends_with_colon" if text.rstrip().endswith((":", "：")) else None


def loops(records: Iterable[Record], *, span: int = 8, most: float = 0.3) -> Iterator[tuple[Record, str | None]]:
    """Drops responses that go round in circles.

    Counted is the share of `span`-word runs that occurred before in the same response; above `most` it is a loop.
    Lines that repeat four times in a row are one too. Reason: "loop". Sources: R40 (de-looping), J5.
    """
    for record in records:
        yield record, "loop" if any(_loops(text, span, most) for text in responses(record)) else None


def _loops(text: str, span: int, most: float) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(len(set(lines[i : i + 4])) == 1 for i in range(len(lines) - 3)):
        return True
    tokens = words(text)
    runs = Counter(tuple(tokens[i : i + span]) for i in range(len(tokens) - span + 1))
    total = sum(runs.values())
    return total >= span and (total - len(runs)) / total > most


def language(
    records: Iterable[Record], *, languages: Sequence[str] = ("en",), on: Side = "both"
) -> Iterator[tuple[Record, str | None]]:
    """Keeps records in the given languages (ISO codes), told by script and by function words.

    Known: en, de, fr, es, it, pt, nl by their commonest words, and zh, ja, ko, ru, ar, el, he, hi, th by script (ru
    stands for Cyrillic, hi for Devanagari). A text of fewer than five words, or without any function word (code,
    formulas), cannot be told and is kept. Reason: "language:<code>". Source: R07.
    """
    unknown = [code for code in languages if code not in _PROFILES and code not in _SCRIPTS]
    if unknown:
        known = ", ".join(sorted({*_PROFILES, *_SCRIPTS}))
        raise RecipeError(f"form.language: cannot tell {', '.join(unknown)}; known: {known}")
    for record in records:
        found = detected(text_of(record, on))
        yield record, None if found is None or found in languages else f"language:{found}"


def detected(text: str) -> str | None:
    """The ISO code of a text's language, or None where it cannot be told."""
    letters = [character for character in text[:5000] if character.isalpha()]
    scripts = Counter(unicodedata.name(character, "?").split()[0].split("-")[0] for character in letters)
    for code, script in _SCRIPTS.items():
        if code != "zh" and scripts[script] > (0.1 if code == "ja" else 0.5) * len(letters) > 0:
            return code
    if scripts["CJK"] > 0.5 * len(letters) > 0:
        return "zh"
    tokens = words(text[:5000])
    if len(tokens) < 5:
        return None
    shares = {code: sum(token in profile for token in tokens) / len(tokens) for code, profile in _PROFILES.items()}
    best = max(shares, key=lambda code: shares[code])
    return best if shares[best] >= 0.05 else None
