"""Names and messages as text for people, in any script: what a terminal would act on is escaped."""

from __future__ import annotations

UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # kinds of characters that a terminal acts on, or that are none
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of the direction
LONGEST_PART = 2_000  # characters of a part of a message


def legible(name: str) -> str:
    """A name for a message, with the escapes of JSON for what a terminal would act on and for what is no text."""
    if name.isprintable():
        return name
    import json

    return "".join(json.dumps(c)[1:-1] if is_unseen(c) or c in TURNS else c for c in name)


def is_unseen(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character) in UNSEEN


def one_line(text: str) -> str:
    """`text` legible in one line, and without its middle where it is very long."""
    if len(text) > LONGEST_PART:
        half = LONGEST_PART // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return legible(text)
