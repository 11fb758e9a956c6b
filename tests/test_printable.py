"""What is printed cannot move a cursor or change the order of reading."""

from __future__ import annotations

import json

import pytest

from compresslab.errors import BadInput
from compresslab.printable import printable, unprintable


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "two\nlines\tand a tab",
        "größer, 模型, \U0001f469\u200d\U0001f4bb, می\u200cخواهم",
        "nbsp\u00a0",
        "שלום\u200f",
        "\u061cم\u06dd",
        "a\u00adb",
        "ไทย\u200bไทย",
        "\U000e0067",
        "全\u3000角",
        "\ufeff",
    ],
)
def test_text_that_is_shown_stays(text: str):
    assert printable(text) == text


@pytest.mark.parametrize("letter", ["\x1b", "\x00", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\udc80"])
def test_what_a_terminal_acts_on_becomes_an_escape(letter: str):
    assert unprintable(letter)
    shown = printable(f"a{letter}b")
    assert shown.isascii()
    assert json.loads(f'"{shown}"') == f"a{letter}b"


def test_every_error_is_printable():
    assert str(BadInput("no file \x1b[2J\u202e")) == r"no file \u001b[2J\u202e"
