"""What became of a question: the words that `synthetic_questions.status` may hold.

KEPT questions train, choose or test a model. Every other status is a reason why one doesn't; the
row stays, so that a person can see what was lost and why.
"""

KEPT = "KEPT"

# Generation: there is no question to speak of.
FAILED = "FAILED"
"""The call failed as often as it was tried: a later plan asks again."""
UNREADABLE = "UNREADABLE"
"""The model's reply could not be read, however often it was asked."""
NOT_ASKED = "NOT_ASKED"
"""The budget was spent before this chunk's turn: the next command goes on from there."""

# People's questions.
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
