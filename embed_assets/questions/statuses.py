"""What became of a question: the words that `synthetic_questions.status` may hold.

KEPT questions train, choose or test a model. Every other status is a reason why one doesn't; the
row stays, so that a person can see what was lost and why. `in_words` is how a person reads one.
"""

from collections.abc import Iterable, Mapping

KEPT = "KEPT"

# Generation: there is no question to speak of.
FAILED = "FAILED"
"""The call failed as often as it was tried: a later plan asks again."""
UNREADABLE = "UNREADABLE"
"""The model's reply could not be read, however often it was asked."""
NOT_ASKED = "NOT_ASKED"
"""The budget was spent before this chunk's turn: the next command goes on from there."""

# People's questions.
NO_SUCH_FILE = "no such file in the folder"
"""Of a row of a file alone: there is no document whose question it could be."""
AMBIGUOUS_FILE = "AMBIGUOUS_FILE"
"""Likewise: a name that is none of a file as it stands, and that of several without its case."""
BAD_ROW = "BAD_ROW"
"""Likewise: there is no question to speak of. Why not is said with its place in the file."""
EVIDENCE_NOT_FOUND = "EVIDENCE_NOT_FOUND"
REJECTED_BY_REVIEWER = "REJECTED_BY_REVIEWER"
TOO_VAGUE = "TOO_VAGUE_TO_TRAIN_ON"

# Filters, in the order in which they are applied.
UNANSWERABLE = "UNANSWERABLE"
POINTS_AT_TEXT = "POINTS_AT_TEXT"
VERBATIM = "VERBATIM"
JUDGED_POOR = "JUDGED_POOR"
DUPLICATE = "DUPLICATE"
NEAR_DUPLICATE = "NEAR_DUPLICATE"
ROUND_TRIP_FAILED = "ROUND_TRIP_FAILED"

JUDGEMENTS = (REJECTED_BY_REVIEWER, UNANSWERABLE, POINTS_AT_TEXT, VERBATIM, JUDGED_POOR)
"""Said about the question itself: they hold when it is exported and read again."""

CORPUS_WIDE = (DUPLICATE, NEAR_DUPLICATE, ROUND_TRIP_FAILED)
"""Decided over the whole corpus by `training_pairs`, anew each time it is made."""

DROPPED: Mapping[str, str] = {
    NOT_ASKED: "not asked",
    FAILED: "failed call",
    UNREADABLE: "unreadable reply",
    BAD_ROW: "bad row",
    NO_SUCH_FILE: NO_SUCH_FILE,
    AMBIGUOUS_FILE: "several files of the folder could be meant",
    EVIDENCE_NOT_FOUND: "evidence not found",
    TOO_VAGUE: "too vague to train on",
    REJECTED_BY_REVIEWER: "rejected by a reviewer",
    UNANSWERABLE: "unanswerable",
    POINTS_AT_TEXT: "points at the text",
    VERBATIM: "quotes its chunk",
    JUDGED_POOR: "judged poor",
    DUPLICATE: "duplicate",
    NEAR_DUPLICATE: "near-duplicate",
    ROUND_TRIP_FAILED: "doesn't find its chunk",
}
"""What each status but KEPT is called, in the order in which questions are dropped."""


def in_words(status: str) -> str:
    """A status as a person reads it; one that isn't known stands under its own name."""
    return "kept" if status == KEPT else DROPPED.get(status, status)


def in_order(statuses: Iterable[str]) -> list[str]:
    """Each of these statuses but KEPT once, as questions are dropped; those not known come last."""
    found = set(statuses) - {KEPT}
    return [status for status in DROPPED if status in found] + sorted(found - set(DROPPED))
