"""The files that go with a student, as text: NOTICE, THIRD_PARTY_TERMS.md, USE_RESTRICTIONS.md.

The texts of licences are not shipped, only named, with their address: whoever publishes copies them from there.
"""

import re

from stillhouse.compliance.decision import NOTICE, Active, Decision
from stillhouse.compliance.registry import Registry

__all__ = ["credits_to_display", "notice_files"]


def notice_files(decision: Decision, registry: Registry) -> dict[str, str]:
    """File name -> text, only the files that a duty of the decision asks for. Lines to complete begin with FILL IN."""
    files = {}
    records = sorted({r.record for r in (*decision.reasons, *decision.lifted) if r.record})
    if records:
        files["THIRD_PARTY_TERMS.md"] = _third_party(records, registry)
    notices = [a for a in decision.obligations if a.code == "NOTICE_FILE"]
    if notices:
        rows = [f"{_title(registry, a.record)} ({_source(registry, a.record)})\n{a.text}\n" for a in notices]
        files["NOTICE"] = "\n".join(dict.fromkeys(rows))
    passing = [a for a in decision.obligations if a.code.startswith("PASS_THROUGH:")]
    if passing:
        files["USE_RESTRICTIONS.md"] = _restrictions(passing, registry)
    return files


def credits_to_display(duty: Active) -> list[str]:
    """The phrases of which one has to be displayed: those in the duty's own quotation marks, else built from its name."""
    named = re.findall(r"“([^”]+)”", duty.text)
    return named or [f"Built with {duty.code.partition(':')[2]}"]


def _third_party(records: list[str], registry: Registry) -> str:
    out = ["# Third-party terms", "", NOTICE, ""]
    for id in records:
        record = registry.by_id.get(id)
        if record is None:  # a record of the recipe's: its reason names the source
            out.append(f"- {id}: stated in the recipe")
            continue
        when = f"read {record.read}" if record.read else "not read"
        out.append(f"- {record.holder}: {record.title} ({id}, {when}): {_source(registry, id)}")
        if record.quote:
            out.append(f"  > {record.quote}")
    return "\n".join(out) + "\n"


def _restrictions(passing: list[Active], registry: Registry) -> str:
    out = [
        "# Use restrictions",
        "",
        "These restrictions are part of the licence of this model and bind whoever uses it.",
        "",
    ]
    for duty in passing:
        out += [
            f"## {_title(registry, duty.record)}",
            "",
            f"{duty.text} ({duty.code.partition(':')[2]}).",
            "",
            f"FILL IN: the text of the restrictions, copied from {_source(registry, duty.record)}",
            "",
        ]
    return "\n".join(out)


def _title(registry: Registry, id: str | None) -> str:
    record = registry.by_id.get(id or "")
    return f"{record.holder}: {record.title}" if record else str(id)


def _source(registry: Registry, id: str | None) -> str:
    record = registry.by_id.get(id or "")
    return str((record.source or record.where_to_read) if record else "see the recipe")
