"""Text that a spreadsheet would take for a formula, in files that people open in one.

OWASP, CSV Injection: what begins with `=`, `+`, `-`, `@`, a tab or a line break gets an apostrophe
before it, by which a spreadsheet knows text. What has apostrophes there already gets one more, so
that reading a file again gives the text that was written.
"""

_FORMULA = (*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20",)


def mark_formulas(text: str, between: str) -> str:
    """Text that no spreadsheet takes for a formula. between: what stands between texts in it."""
    parts = text.split(between)
    return between.join(f"'{part}" if _is_formula(part) else part for part in parts)


def unmark_formulas(text: str, between: str) -> str:
    """The text that was marked so."""
    parts = text.split(between)
    return between.join(
        part[1:] if part[:1] == "'" and _is_formula(part) else part for part in parts
    )


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA)
