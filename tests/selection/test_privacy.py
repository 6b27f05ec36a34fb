import json
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.selection.privacy import personal_data, secrets, toxic

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe+x@mail.co.uk please", "email"),
        ("Call +49 30 901820 now", "phone"),
        ("tel: 0171 555 1234", "phone"),
        ("his number is 212-555-0142", "phone"),
        ("card 4111 1111 1111 1111 exp 10/30", "card_number"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "iban"),
        ("SSN 123-45-6789", "ssn_number"),
        ("from 8.8.8.8 today", "ip_address"),
    ],
)
def test_personal_data_by_kind(example, text: str, kind: str) -> None:  # type: ignore[no-untyped-def]
    """R07, O6: the reason names the kind and never the text."""
    assert [why for _, why in personal_data([example("q", text)])] == [f"personal_data:{kind}"]


@pytest.mark.parametrize(
    "text",
    [
        "Write to someone@example.com",
        "4111 1111 1111 1112 is no valid card",
        "GB82 WEST 1234 5698 7654 33 has a wrong checksum",
        "In 1999, 2000 and 2001 there were 12 345 678 people",
        "version 1.2.3.4, mask 255.255.255.0, host 192.168.0.1",
        "2 + 2 = 4; 100-200-300 units of 3.14159",
        "000-12-3456",
    ],
)
def test_what_only_looks_like_it_stays(example, text: str) -> None:  # type: ignore[no-untyped-def]
    assert [why for _, why in personal_data([example("q", text)], kinds=None)] == [None]


def test_secrets(example) -> None:  # type: ignore[no-untyped-def]
    """O6: keys by their published formats, passwords by entropy; placeholders stay. Built here so that no scanner trips."""
    texts = [
        "key AKIA" + "ABCDEFGHIJKLMNOP",
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "pass" + "word = 'tR7#kq9Lz!'",
        "password = '<your password>'",
        "api_key = os.environ['KEY']",
        "the secret of good bread is time",
    ]
    assert [why for _, why in secrets([example("q", text) for text in texts])] == [
        "secret:aws_key", "secret:private_key", "secret:named_secret", None, None, None,
    ]  # fmt: skip


def test_an_unknown_kind_is_refused(example) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match="no kind 'mail'"):
        list(personal_data([example("q", "r")], kinds=["mail"]))


def test_toxic_takes_any_grader_and_never_keeps_what_it_could_not_tell(example) -> None:  # type: ignore[no-untyped-def]
    def grader(responses, references):  # type: ignore[no-untyped-def]
        return [Grade({"bad": 0.9, "fine": 0.1}.get(r), "scripted") for r in responses]

    records = [example("q", r) for r in ("bad", "fine", "other")]
    assert [why for _, why in toxic(records, grader=grader)] == ["toxic", None, "could_not_tell"]


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_maths_problems_hold_no_personal_data(example) -> None:  # type: ignore[no-untyped-def]
    """False positives: 2,000 GSM8K rows full of numbers."""
    lines = (Path(DATA or "") / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
    records = [example(row["question"], row["answer"]) for row in map(json.loads, lines)]
    assert sum(why is not None for _, why in personal_data(records)) <= 2
    assert sum(why is not None for _, why in secrets(records)) == 0
