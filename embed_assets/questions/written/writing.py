"""Questions written by a language model, each answer paid for once.

What is known is taken from the answer store; the rest is asked for, stored as it arrives, and read
back. So a run that ends half-way, for whatever reason, has lost nothing but the calls in flight.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from embed_assets.errors import one_line
from embed_assets.questions.statuses import FAILED, JUDGED_POOR, KEPT, NOT_ASKED, UNREADABLE
from embed_assets.questions.written.huggingface import LocalWriter
from embed_assets.questions.written.openai import Keep, OpenAIWriter, Spend, Spent, cost
from embed_assets.questions.written.prompts import (
    AROUND,
    Passage,
    Prompt,
    QuestionPrompts,
    judge_prompt,
    read_scores,
)
from embed_assets.resources.answers import AnswerStore, OpenAnswers, Reply
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.wording import counted, printable

LOG_EVERY = 15.0  # seconds
OTHERS_POLL = 0.5  # seconds between looks at what another run is asking for
OVER_BUDGET = "the budget of this command was spent"


class Writer(Protocol):
    """A language model that answers prompts."""

    def write(self, prompts: Iterator[Prompt], keep: Keep, spend: Spend, spent: Spent) -> bool:
        """Draw prompts, give each reply to `keep`; True unless the budget ended first."""
        ...


@dataclass(frozen=True)
class Writing:
    """What it takes to ask: settings, the answers so far, whose budget it is, a log."""

    settings: Settings
    answers: AnswerStore
    session: str
    log: Callable[[str], None]

    def warn(self, line: str) -> None:
        """Log a line, and show it to the person who waits at a terminal."""
        from tqdm import tqdm

        self.log(line)
        tqdm.write(printable(line), file=sys.stderr)

    def open_answers(self, model: str, version: str) -> AbstractContextManager[OpenAnswers]:
        """The answers of a model to prompts of a version."""
        return self.answers.open(model, version, self.session, self.log)

    def writer(self, setting: str, generator: str, temperature: float) -> Writer:
        """The writer that `openai:MODEL` or `huggingface:MODEL` names; setting: where it does."""
        kind, _, model = generator.partition(":")
        if kind == "huggingface":
            return LocalWriter(model, self.settings, temperature)
        return OpenAIWriter(setting, model, self.settings, temperature, self.warn)


COLUMNS: Mapping[str, Any] = {
    name: dtype
    for name, dtype in TABLES["synthetic_questions"].schema.items()
    if name != "question_id"
} | {"answerable": pl.Boolean}


def written_questions(chunks: pl.DataFrame, writing: Writing) -> pl.DataFrame:
    """Questions that a language model asks of chunks.

    chunks: rows of the table of that name. Returns most columns of synthetic_questions, and
    `answerable`. A chunk that gave no question has one row that says why: its status is FAILED,
    UNREADABLE or NOT_ASKED. Raises ServerError if the model's server can't be used.
    """
    settings = writing.settings
    generator = settings.questions
    prompts = QuestionPrompts(settings)
    calls = {p.text: prompts.prompt(generator, p) for p in _passages(chunks)}
    writer = writing.writer("EMBED_ASSETS_QUESTIONS", generator, settings.llm_temperature)
    places = chunks.select("chunk_text", "chunk_id", "document_id").unique(
        ["chunk_id", "document_id"], maintain_order=True
    )
    with writing.open_answers(generator, prompts.version) as answers:
        answers.use((key, calls[text].key) for text, _, key in places.iter_rows())
        left = ask(calls.values(), writer, answers, writing, "Writing questions")
        rows = {key: [_no_question(*why)] for key, why in left.items()} | {
            key: _read(reply, prompts)
            for key, reply in answers.replies([prompt.key for prompt in calls.values()])
        }
    shared = {"purpose": "train", "generator": generator, "prompt_version": prompts.version}
    return pl.DataFrame(
        [
            {
                "chunk_id": chunk_id,
                "relevant_chunk_ids": [chunk_id],
                "document_id": document_id,
                **shared,
                **row,
            }
            for text, chunk_id, document_id in places.iter_rows()
            for row in rows[calls[text].key]
        ],
        schema=COLUMNS,
    )


def judged_questions(
    questions: pl.DataFrame, chunk_texts: Mapping[str, str], writing: Writing
) -> pl.DataFrame:
    """Questions with the judge's score; KEPT ones below the threshold become JUDGED_POOR.

    questions: chunk_id, document_id, question, status, reason, score. Those that the judge could
    not be asked about are NOT_ASKED, and the next ingest asks. A score that can't be read drops
    nothing: the question's reason says so.
    """
    settings = writing.settings
    candidates = questions.filter(status=KEPT)
    by_chunk: dict[str, list[str]] = dict(
        candidates.group_by("chunk_id", maintain_order=True)
        .agg(pl.col("question").unique(maintain_order=True))
        .iter_rows()
    )
    calls = {
        chunk: judge_prompt(settings.judge, chunk_texts[chunk], asked)
        for chunk, asked in by_chunk.items()
    }
    chunk_of = {prompt.key: chunk for chunk, prompt in calls.items()}
    scores: dict[tuple[str, str], float] = {}
    places = candidates.select("document_id", "chunk_id").unique()
    with writing.open_answers(settings.judge, "judge") as answers:
        answers.use((key, calls[chunk].key) for key, chunk in places.iter_rows())
        writer = writing.writer("EMBED_ASSETS_JUDGE", settings.judge, temperature=0.0)
        left = ask(calls.values(), writer, answers, writing, "Judging questions")
        for key, reply in answers.replies(list(chunk_of)):
            chunk = chunk_of[key]
            numbers = read_scores(reply.text, len(by_chunk[chunk]))
            scores.update(((chunk, q), n) for q, n in zip(by_chunk[chunk], numbers, strict=False))

    def judge(row: Mapping[str, Any]) -> dict[str, Any]:
        status, reason, score = row["status"], row["reason"], row["score"]
        if status == KEPT:
            score = scores.get((row["chunk_id"], row["question"]))
            if score is not None and score < settings.judge_threshold:
                status = JUDGED_POOR
            elif why := left.get(calls[row["chunk_id"]].key):
                status, reason = NOT_ASKED, f"not judged: {why[1]}"
            elif score is None:
                reason = "not judged: the judge's reply can't be read"
        return {"status": status, "reason": reason, "score": score}

    verdicts = [judge(row) for row in questions.iter_rows(named=True)]
    unread = sum(v["status"] == KEPT and v["score"] is None for v in verdicts)
    if unread:
        writing.warn(f"{counted(unread, 'question')} unjudged: the judge's replies can't be read.")
    schema = {"status": pl.String, "reason": pl.String, "score": pl.Float64}
    return questions.with_columns(pl.DataFrame(verdicts, schema=schema).get_columns())


def ask(
    prompts: Iterable[Prompt],
    writer: Writer,
    answers: OpenAnswers,
    writing: Writing,
    title: str,
) -> dict[str, tuple[str, str]]:
    """Have every call answered that has no answer yet, and store the answers as they arrive.

    What another run is asking for at this moment is waited for, not asked twice. Returns status and
    reason of what is left without an answer, by key.
    """
    calls = {prompt.key: prompt for prompt in prompts}
    known = answers.known(list(calls))
    waiting = [key for key in calls if key not in known]
    if not waiting:
        return {}
    failures: dict[str, tuple[str, str]] = {}
    answers.release_dead()
    with closing(Progress(len(calls), len(known), title, answers, writing)) as progress:

        def keep(prompt: Prompt, reply: Reply | Exception) -> None:
            if isinstance(reply, Reply):
                answers.put(prompt.key, reply)
                progress.advance(prompt.entries(reply.text))
            else:
                failures[prompt.key] = FAILED, str(reply)
                answers.give_back(prompt.key)
                writing.warn(f"A call failed for good: {reply}")
                progress.advance(0, failed=True)

        told = False
        while waiting:
            free = (calls[key] for key in waiting if answers.claim(key))
            within_budget = writer.write(free, keep, answers.spend, answers.spent)
            known = answers.known(waiting)
            waiting = [key for key in waiting if key not in known and key not in failures]
            if not within_budget:
                break
            if waiting:
                if not told:
                    writing.warn(f"Another run is asking for {len(waiting)} of these: waiting.")
                told = True
                time.sleep(OTHERS_POLL)
                answers.release_dead()
    if waiting:
        writing.warn(
            f"{OVER_BUDGET.capitalize()}: {len(waiting)} of {counted(len(calls), 'call')} left for "
            "the next one (EMBED_ASSETS_LLM_TOKEN_BUDGET, EMBED_ASSETS_LLM_COST_BUDGET)."
        )
    return failures | dict.fromkeys(waiting, (NOT_ASKED, OVER_BUDGET))


class Progress:
    """How far it is, what it took and how long it will take: on stderr, and now and then a log."""

    def __init__(
        self, total: int, known: int, title: str, answers: OpenAnswers, writing: Writing
    ) -> None:
        """total: calls in all. known: of those, answered before."""
        self._bar = progress_bar(title, total, "call", initial=known)
        self._title, self._answers, self._writing = title, answers, writing
        self._known, self._failed, self._entries = known, 0, 0
        self._start = self._logged = time.monotonic()
        self._spent_before = answers.spent()

    def close(self) -> None:
        """Say once more how far it came."""
        self._bar.close()
        self._writing.log(self._line())

    def advance(self, entries: int, *, failed: bool = False) -> None:
        """One more call has ended, and gave so many questions."""
        self._entries += entries
        self._failed += failed
        self._bar.set_postfix_str(self._spending(), refresh=False)
        self._bar.update()
        if time.monotonic() - self._logged >= LOG_EVERY:
            self._logged = time.monotonic()
            self._writing.log(self._line())

    def _line(self) -> str:
        done, total = self._bar.n, self._bar.total
        seconds = max(time.monotonic() - self._start, 1e-9)
        parts = [
            f"{self._title}: {done} of {counted(total, 'call')} ({self._known} known before)",
            f"{self._entries / seconds:.1f} questions/s",
            self._spending(),
        ]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if self._known < done < total:
            left = (total - done) * seconds / (done - self._known)
            parts.append(f"{left / 60:.1f} min left")
        return ", ".join(parts)

    def _spending(self) -> str:
        read, written = (
            now - before
            for now, before in zip(self._answers.spent(), self._spent_before, strict=True)
        )
        price = cost(self._writing.settings, read, written)
        return f"{counted(read, 'token')} sent, {written} received" + (
            f", cost {price:.4g}" if price else ""
        )


def _read(reply: Reply, prompts: QuestionPrompts) -> list[dict[str, Any]]:
    """Columns of the questions in a reply, or of the one row that says it can't be read."""
    entries = prompts.read(reply.text)
    if not entries:
        said = one_line(reply.text, 120) or "nothing"
        took = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
        row = _no_question(UNREADABLE, f"the model wrote: {said}")
        return [row | took | {"created_at": reply.created_at}]
    read, written = (_shares(n, len(entries)) for n in (reply.input_tokens, reply.output_tokens))
    return [
        {
            "question": entry.question,
            "answer": entry.answer,
            "kind": entry.kind,
            "status": KEPT,
            "answerable": entry.answerable,
            "input_tokens": read[place],
            "output_tokens": written[place],
            "created_at": reply.created_at,
        }
        for place, entry in enumerate(entries)
    ]


def _no_question(status: str, reason: str) -> dict[str, Any]:
    """Columns of the row that says why a chunk has no question."""
    nothing = {"question": "", "kind": "none", "input_tokens": 0, "output_tokens": 0}
    return {**nothing, "status": status, "reason": reason}


def _shares(total: int, parts: int) -> list[int]:
    """A total in whole parts that add up to it."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


def _passages(chunks: pl.DataFrame) -> Iterator[Passage]:
    """Each distinct text once, as it stands where it is met first."""
    seen: set[str] = set()
    ordered = chunks.sort("document_id", "chunk_index")
    for document in ordered.partition_by("document_id", maintain_order=True):
        texts: list[str] = document["chunk_text"].to_list()
        headings: list[str] = document["heading_path"].to_list()
        title = headings[0].partition(" > ")[0] or document["file_name"][0]
        for place, text in enumerate(texts):
            if text in seen:
                continue
            seen.add(text)
            yield Passage(
                text=text,
                title=title,
                headings=headings[place],
                before=texts[place - 1][-AROUND:] if place else "",
                after=texts[place + 1][:AROUND] if place + 1 < len(texts) else "",
            )


def version(settings: Settings) -> str:
    """What identifies the questions of a model under these settings."""
    prompts = QuestionPrompts(settings)
    return f"{settings.questions} {prompts.version} {json.dumps(prompts.parameters)}"
