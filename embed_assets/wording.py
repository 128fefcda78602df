"""How counts and changes are said, in the terminal, the UI and the report alike."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 document`, `1,200 documents`. plural: where it is not noun + s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def signed_percent(percent: float | None) -> str:
    """A change in percent: `+17.3 %`; a dash where there is none."""
    return "–" if percent is None else f"{percent:+.1f} %".replace("-", "\N{MINUS SIGN}")


def change(before: float, after: float) -> str:
    """By how much of itself a figure changed, as `signed_percent` says it; a dash from nothing."""
    return signed_percent(100 * (after - before) / before if before else None)


def watt_hours(energy: float) -> str:
    """An amount of energy: `12.35 Wh`; a small one with two digits that count: `0.0031 Wh`."""
    return f"{energy:,.2f} Wh" if energy >= 0.1 else f"{energy:.2g} Wh"
