"""Texts in a cell: one, a list of them, or a list that was written as a text."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from embed_assets.data_files.reading import real_text
from embed_assets.data_files.rows import parse_json

LONGEST_LIST = 10_000_000
"""Characters of a text that is tried as a list."""
NOTHING = frozenset(
    {"nan", "-nan", "<na>", "nat", "null", "#n/a", "#n/a n/a", "#na", "#null!", "#ref!"}
    | {"#value!", "#name?", "#div/0!", "#num!", "1.#qnan", "-1.#ind", "1.#ind", "-1.#qnan"}
)
"""How spreadsheets and pandas write an empty cell, in small letters…"""
PERHAPS_NOTHING = frozenset({"none", "na", "n/a", "-"})
"""…and how they do where the word may be meant."""

_TEXT_KEYS = ("text", "page_content", "content", "chunk_text")
_HOP = re.compile(r"<\d+-hop>\s*")
_STRING = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*\"""", re.DOTALL)
_BETWEEN = " ,\r\n\t"


def is_empty(value: Any, words_mean_nothing: bool = True) -> bool:
    """Whether a cell holds nothing: null, NaN, blank, or a text that spreadsheets write for it.

    words_mean_nothing: also words such as None, which may be an answer.
    """
    if value is None or value != value:  # NaN alone is not equal to itself
        return True
    if isinstance(value, str):
        text = value.strip().lower()
        return not text or text in NOTHING or (words_mean_nothing and text in PERHAPS_NOTHING)
    return isinstance(value, (list, Mapping)) and not value


def cell_texts(value: Any) -> list[str]:
    """The texts of a cell: a text, a number, a list of them, or of objects with a text."""
    if isinstance(value, Mapping):
        key = next((key for key in _TEXT_KEYS if key in value), None)
        if key is None:
            raise TypeError("is an object without a text")
        return cell_texts(value[key])
    if isinstance(value, (list, tuple)):
        return [text for item in value if item is not None for text in cell_texts(item)]
    if isinstance(value, bytes):
        raise TypeError("is bytes, not a text")
    text = real_text(str(value))
    listed = list_in_text(text)
    return [text] if listed is None else [real_text(text) for text in listed]


def passage(text: str) -> str:
    """A passage without Ragas' mark of the hop."""
    mark = _HOP.match(text.lstrip())
    return text.lstrip()[mark.end() :] if mark else text


def list_in_text(text: str) -> list[str] | None:
    """The texts of a list that was written as a text; None where the text is none.

    JSON, Python's repr, and NumPy's, which has no commas. Only strings are read, never a program.
    """
    text = text.strip()
    if len(text) > LONGEST_LIST:
        return None
    if text.startswith("array(") and text.endswith(")"):
        text = text[6:-1].strip()
        head, _, tail = text.rpartition(",")
        text = head if tail.strip().startswith("dtype=") else text
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return _strings(text[1:-1])
    strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if strings else None


def _strings(text: str) -> list[str] | None:
    """Python's strings that stand one after another; None where there is anything else."""
    found: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in _BETWEEN:
            at += 1
            continue
        string = _STRING.match(text, at)
        if string is None:
            return None
        try:
            found.append(ast.literal_eval(string[0].replace("\r", "\\r").replace("\n", "\\n")))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        at = string.end()
    return found
