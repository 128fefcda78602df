"""No pattern of the package backtracks over a long text, whatever the text says.

A page, a name or an answer of a server may be a megabyte of one sign. Each pattern is tried on long
texts that are made from its own parts, which is where a pattern that backtracks loses its way.
"""

import ast
import importlib
import pkgutil
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import embed_assets

parser = importlib.import_module("re._parser")
LENGTH = 40_000
"""Characters of a hostile text: a quadratic pattern takes 800 million steps, over a second."""
SECONDS = 1.0
"""Of processor time, for what takes milliseconds where a pattern is linear."""
ENDS = ("\x00", "!")
MOST_TEXTS = 60
"""Hostile texts of one pattern, of those that it gives rise to."""
FUNCTIONS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}


def patterns_in(value: Any) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif type(value) in (list, tuple, frozenset, set):
        for item in value:
            yield from patterns_in(item)
    elif type(value) is dict:
        yield from patterns_in(list(value.values()))


def all_patterns() -> dict[str, re.Pattern[str]]:
    """Every pattern at the top of a module, by its text."""
    found = {}
    for module in pkgutil.walk_packages(embed_assets.__path__, "embed_assets."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            found |= {pattern.pattern: pattern for pattern in patterns_in(value)}
    return found


PATTERNS = all_patterns()

SAMPLES = {"CATEGORY_DIGIT": "7", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}


def sample_of(items: Any, choice: int) -> str:
    """A text that a parsed pattern is likely to match. choice: which of alternatives is taken."""
    text = ""
    for op, value in items:
        name = str(op)
        if name in ("LITERAL", "NOT_LITERAL"):
            text += chr(value) if name == "LITERAL" else chr(value + 1)
        elif name == "ANY":
            text += "a"
        elif name == "IN":
            text += sample_of_class(value, choice)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            text += sample_of(value[2], choice) * max(1, value[0])
        elif name == "SUBPATTERN":
            text += sample_of(value[3], choice)
        elif name == "BRANCH":
            text += sample_of(value[1][choice % len(value[1])], choice)
        elif name == "ATOMIC_GROUP":
            text += sample_of(value, choice)
    return text


def sample_of_class(members: list, choice: int) -> str:
    if str(members[0][0]) == "NEGATE":
        kept = [c for c in "a 7.-(_|*\n水" if not any(in_member(c, m) for m in members[1:])]
        return kept[choice % len(kept)] if kept else "☃"
    op, value = members[choice % len(members)]
    if str(op) == "RANGE":
        return chr(value[0])
    return chr(value) if str(op) == "LITERAL" else SAMPLES.get(str(value), "-")


def in_member(character: str, member: tuple) -> bool:
    op, value = str(member[0]), member[1]
    if op == "LITERAL":
        return ord(character) == value
    if op == "RANGE":
        return value[0] <= ord(character) <= value[1]
    return {
        "CATEGORY_SPACE": character.isspace(),
        "CATEGORY_WORD": character.isalnum() or character == "_",
        "CATEGORY_NOT_WORD": not (character.isalnum() or character == "_"),
        "CATEGORY_DIGIT": character.isdigit(),
    }.get(str(value), False)


def repeats_in(items: Any, before: str = "") -> Iterator[tuple[str, object]]:
    """Every part that may be repeated without end, with a text that leads up to it."""
    for item in items:
        op, value = str(item[0]), item[1]
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            if value[1] > 100:
                yield before, value[2]
            yield from repeats_in(value[2], before)
        elif op == "SUBPATTERN":
            yield from repeats_in(value[3], before)
        elif op == "ATOMIC_GROUP":
            yield from repeats_in(value, before)
        elif op in ("ASSERT", "ASSERT_NOT"):
            yield from repeats_in(value[1], before)
        elif op == "BRANCH":
            for branch in value[1]:
                yield from repeats_in(branch, before)
        before += sample_of([item], 0)


def letters_of(items: Any) -> set[str]:
    """Single characters of which a pattern speaks."""
    found: set[str] = set()
    for op, value in items:
        if str(op) == "LITERAL":
            found.add(chr(value))
        elif str(op) == "IN":
            found |= letters_of(value)
        elif str(op) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            found |= letters_of(value[2])
        elif str(op) == "SUBPATTERN":
            found |= letters_of(value[3])
        elif str(op) == "BRANCH":
            found = found.union(*map(letters_of, value[1]))
    return found


def hostile_texts(pattern: re.Pattern[str]) -> list[str]:
    parsed = parser.parse(pattern.pattern, pattern.flags)
    letters = letters_of(parsed) if len(letters_of(parsed)) < MOST_TEXTS else set()
    whole = sample_of(parsed, 0) or "a"
    texts = {whole * (LENGTH // len(whole))}
    for before, repeated in repeats_in(parsed):
        units = {sample_of(repeated, 0) or "a", sample_of(repeated, 1) or "a"}
        for unit in {"a", " ", *units, *letters}:
            texts.add(before + unit * (LENGTH // len(unit)))
        for unit in units:
            texts.add((before + unit) * (LENGTH // len(before + unit)))
    every = sorted(text + end for text in texts for end in ENDS)
    return every[:: 1 + len(every) // MOST_TEXTS]


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError after so much processor time; a busy machine doesn't count."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def look_for(pattern: re.Pattern[str], seconds: float) -> None:
    """Look for a pattern in each of its hostile texts, everywhere."""
    for text in hostile_texts(pattern):
        with limited(seconds):
            pattern.fullmatch(text)
            for _ in pattern.finditer(text):
                pass


@pytest.mark.parametrize("text", PATTERNS, ids=range(len(PATTERNS)))
def test_no_pattern_takes_longer_than_in_proportion_to_its_text(text):
    look_for(PATTERNS[text], SECONDS)


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+b", r"(\s*(#+ .*)\s*(\n|$))*x", r"\s+\.", r"[ab]*c", r"\$([^$]*[_^][^$]*)\$"],
)
def test_a_pattern_that_backtracks_is_found(pattern):
    with pytest.raises(TimeoutError):
        look_for(re.compile(pattern), 0.3)


def calls_of_re(path: Path) -> Iterator[ast.Call]:
    """Calls of `re` within functions, where nobody tries their patterns."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    for call in (node for function in functions for node in ast.walk(function)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            of_re = isinstance(call.func.value, ast.Name) and call.func.value.id == "re"
            if of_re and call.func.attr in FUNCTIONS | {"compile"}:
                yield call


def test_patterns_stand_at_the_top_of_a_module_where_they_are_tried():
    inline = [
        f"{path.name}:{call.lineno}"
        for path in Path(embed_assets.__path__[0]).rglob("*.py")
        for call in calls_of_re(path)
        if "re.escape" not in ast.unparse(call)  # of literal texts alone
    ]
    assert inline == []
