"""LaTeX inside JSON: a model that writes `\\frac` where JSON needs `\\\\frac` loses it to a form feed, without an error.

Worked out on the raw text, because the parser is silent and a repairer does the same damage. `\\b` and `\\f` before a letter
are always LaTeX. `\\n`, `\\r` and `\\t` may be white space: they are LaTeX where the letters make a known command; a
command of two letters (`\\nu`, `\\to`) could as well be white space and a letter, and is flagged, not guessed.
"""

import re

__all__ = ["latex_mended"]

_NAMES = (
    # n
    "nabla natural ncong nearrow neg neq newcommand newline nexists ngeq nleq nless ngtr nmid noindent nonumber "
    "normalsize not notin nparallel nprec nsim nsubseteq nsucc ntriangleleft numberwithin nwarrow nolimits nolinebreak "
    # r
    "raisebox rangle rbrace rbrack rceil real ref renewcommand require rfloor rgroup rhd rho right rightarrow "
    "rightharpoonup rightleftharpoons rightsquigarrow rlap rmoustache root rotatebox rtimes rule rvert "
    # t
    "tan tanh tag tau tbinom tensor text textbf textit textrm textsf textsc texttt textstyle tfrac therefore theta thetasym "
    "thicksim thickapprox thinspace tilde times tiny title today top triangle triangledown triangleleft triangleleq "
    "triangleright triangleq twoheadrightarrow"
)
_COMMANDS = frozenset(_NAMES.split())
_SHORT = frozenset({"nu", "ne", "ni", "to", "rm", "tt", "th", "td"})
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|u|([nrt])([A-Za-z]*)|([bf])([A-Za-z]?)|[\"\\/]|.|\Z)", re.DOTALL)


def latex_mended(text: str) -> tuple[str, tuple[str, ...]]:
    """(JSON text with the backslashes of LaTeX doubled, flags): `latex_fixed`, `latex_ambiguous`. Only inside strings."""
    if "\\" not in text:
        return text, ()
    out, flags, at, inside = [], set(), 0, False
    while at < len(text):
        character = text[at]
        if inside and character == "\\":
            match = _ESCAPE.match(text, at)
            assert match is not None
            piece, flag = _mended(match)
            out.append(piece)
            flags |= {flag} if flag else set()
            at += 2 if match[1] or match[3] else len(match[0])
            continue
        if character == '"':
            inside = not inside
        out.append(character)
        at += 1
    return "".join(out), tuple(sorted(flags))


def _mended(match: "re.Match[str]") -> tuple[str, str]:
    """What stands for one escape (its first two characters where letters follow), and the flag it earns."""
    whole = match[0]
    if match[1]:
        name = match[1] + match[2]
        if name in _COMMANDS:
            return "\\" + whole[:2], "latex_fixed"
        return whole[:2], "latex_ambiguous" if name in _SHORT else ""
    if match[3]:
        return ("\\" + whole[:2], "latex_fixed") if match[4] else (whole[:2], "")
    if whole[1:] in ('"', "\\", "/") or len(whole) == 6:
        return whole, ""
    return "\\" + whole, "latex_fixed"
