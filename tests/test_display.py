from __future__ import annotations

import os

import pytest

from pymixunlearn.display import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zoë 猫 ½ ✓ $x", "Zoë 猫 ½ ✓ $x"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("a\u2028b", r"a\u2028b"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0001", r"\U000e0001"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\xad", r"\xad"),
        ("\u0100\ue000", "\u0100" + r"\ue000"),
        ("\udc80\udcff\udc7f\udd00", r"\x80\xff\udc7f\udd00"),
        ("\uffff\U0010ffff", r"\uffff\U0010ffff"),
        ("", ""),
    ],
)
def test_only_what_can_be_seen_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()  # valid in any Unicode file


def test_line_breaks_stay_where_wanted() -> None:
    assert printable("a\n\x1b", keep="\n") == "a\n\\x1b"
