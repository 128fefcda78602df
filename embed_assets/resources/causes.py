"""What kinds of things go wrong, as worker processes and the ledger know them."""

from enum import StrEnum


class Cause(StrEnum):
    """What kind of thing went wrong."""

    PROCESS_ENDED = "process ended"
    """The system ended a worker process, for lack of memory most often."""
    NO_MEMORY = "no memory"
    UNREADABLE_FILE = "unreadable file"
    """The file may not be read just now."""
    TIME_LIMIT = "time limit"
    NOT_ASKED = "not asked"
    """The budget was spent before a language model was asked about every chunk."""
    CALL_FAILED = "call failed"
    """A server did not answer, or refused."""
    CUT_OFF = "cut off"
    """The file has no end: its copying was broken off, or goes on."""
    NEEDS_PASSWORD = "needs a password"
    NEEDS_OCR = "needs OCR"
    """Pages have no usable text: their pictures may show some."""
    NO_LAYOUT = "no layout"
    """Pages are plain text, since the layout model took too long for them."""
    FORGOTTEN = "forgotten"
    """A person said that the document must not be here."""
    FAILED = "failed"
    """The step ended with an error."""
