"""Text to show: from outside, such as the name of a file or a class, made safe; numbers and types with their nouns."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})
"""Unicode categories without a sign of their own: controls, formats, surrogates, unassigned, line separators."""
_JOINERS = "\u200c\u200d"
"""They belong to words of several scripts and to composed emoji."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with every character that shows nothing, or steers a terminal, written as an escape.

    An escape sequence could recolour a terminal or rename its window, a change of direction could make one name look
    like another, and neither may stand in an SVG. Bytes that were not UTF-8, which Python holds as lone surrogates,
    become ``\xNN``.

    Args:
        text: Any text.
        keep: Characters to leave as they are, such as ``"\n"`` in a text of several lines.

    Example:
        >>> printable("caf\xe9 \x1b[31m$x_1")
        'café \\x1b[31m$x_1'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep or not _hidden(letter) else _escaped(letter) for letter in text)


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    Args:
        count: The number.
        one: The noun for 1.
        many: The noun for other numbers; ``one`` with an "s" if not given.

    Example:
        >>> counted(1, "person", "people"), counted(2, "sample")
        ('1 person', '2 samples')
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def a_type(value: object) -> str:
    """Return the name of a value's type with its article.

    Example:
        >>> a_type(3), a_type([])
        ('an int', 'a list')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' or name == 'ndarray' else 'a'} {name}"


def without_password(text: str) -> str:
    """Return ``text`` with three stars in the place of passwords in a URL: before the host, and in the query.

    Example:
        >>> without_password("--ledger=postgresql://ann:secret@host/db?sslpassword=other&port=5")
        '--ledger=postgresql://ann:***@host/db?sslpassword=***&port=5'
    """
    if "://" not in text:
        return text
    text = re.sub(r"(://[^:/@]*:).*@", r"\1***@", text)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", text)


def _hidden(letter: str) -> bool:
    return letter not in _JOINERS and unicodedata.category(letter) in _HIDDEN


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # what os.fsdecode makes of a byte that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
