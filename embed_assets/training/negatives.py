"""Hard negatives: chunks that the base model takes for an answer, and that are none.

Only chunks that are trained on may be one: a chunk held out for a test must not be pushed away from
questions. What scores nearly as well as the true answer often is one, so it is left alone
(positive-aware mining: Moreira et al. 2024, NV-Retriever, 'TopK-PercPos').
"""

from collections.abc import Callable, Generator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embed_assets.errors import ProjectError
from embed_assets.terminal import progress_bar

POSITIVE_SHARE = 0.95
"""A negative scores at most this share of the positive's cosine."""
CHUNKS = 32_768
"""Chunks that are searched at a time, by one worker where there are several."""
QUESTIONS = 512
"""Questions that are asked at a time. With CHUNKS it bounds the memory. The result depends on
neither, but for which of several equal chunks is taken."""
SECONDS_FOR_A_PART = 3600.0
"""That a worker is given; it takes some."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some chunks, in which negatives of all questions are searched.

    questions: float (questions, size), normalised. most: float (questions,), what a negative's
    cosine is at most. chunks: float (chunks, size). ruled_out: int (2, pairs), questions and
    those chunks of the part that are no negatives of theirs. count: as `mine_negatives` has it.
    start: place of the part's first chunk among all.
    """

    questions: np.ndarray
    most: np.ndarray
    chunks: np.ndarray
    ruled_out: np.ndarray
    count: int
    start: int


Found = tuple[np.ndarray, np.ndarray]
"""The best of what may be negatives: cosines, float (questions, count), and places of chunks, int
of that shape. Where there are fewer, the cosine is -inf."""
Search = Callable[[Sequence[Part]], Generator[Found, None, None]]
"""Gives what `best_of` finds in each part, in their order."""


def search_here(parts: Sequence[Part]) -> Generator[Found, None, None]:
    """Parts are searched by this process."""
    yield from map(best_of, parts)


def mine_negatives(
    questions: np.ndarray,
    chunks: np.ndarray,
    chunk_ids: Sequence[str],
    positives: Sequence[str],
    related: Sequence[AbstractSet[str]],
    count: int,
    search: Search = search_here,
) -> list[list[str]]:
    """Ids of `count` chunks for each question: the best scored among those that may be negatives.

    questions: float (questions, size). chunks: float (chunks, size), of distinct chunk_ids, those
    that are trained on. positives: each question's chunk_id, one of those. related: by question,
    the ids of chunks that are no negatives of it. Where fewer than `count` chunks score low enough,
    the least alike of the rest fill up. search: where the parts are searched.
    ValueError where there are not `count` unrelated chunks. ProjectError where embeddings are not
    finite.
    """
    if not len(questions) or not count:
        return [[] for _ in questions]
    if not np.isfinite(questions.sum()) or not np.isfinite(chunks.sum()):
        raise ProjectError(
            "Embeddings hold NaN or infinity: the model is broken, or overflowed. Try "
            "EMBED_ASSETS_PRECISION=fp32."
        )
    place_of = {chunk_id: place for place, chunk_id in enumerate(chunk_ids)}
    no_negatives = [
        sorted(place_of[other] for other in mine | {positive} if other in place_of)
        for mine, positive in zip(related, positives, strict=True)
    ]
    least = len(chunk_ids) - max(map(len, no_negatives), default=0)
    if least < count:
        raise ValueError(
            f"{count} hard negatives are wanted and only {least} chunks are no answer."
        )
    asked = _normalised(questions)
    answers = _normalised(chunks[[place_of[positive] for positive in positives]])
    cosines = np.einsum("ij,ij->i", asked, answers)
    most = cosines - (1 - POSITIVE_SHARE) * np.abs(cosines)
    mined = _mined(search, asked, most, chunks, no_negatives, count)
    if few := [place for place, row in enumerate(mined) if len(row) < count]:
        ruled_out = [[*no_negatives[place], *mined[place]] for place in few]
        no_limit = np.full(len(few), np.inf)
        least_alike = _mined(search, -asked[few], no_limit, chunks, ruled_out, count)
        for place, row in zip(few, least_alike, strict=True):
            mined[place] += row[: count - len(mined[place])]
    return [[chunk_ids[place] for place in row] for row in mined]


def best_of(part: Part) -> Found:
    """Negatives of each question in a part, the best first; by a worker, or here."""
    chunks = _normalised(part.chunks)
    found = [
        _best_of_some(part, chunks, slice(start, start + QUESTIONS))
        for start in range(0, len(part.questions), QUESTIONS)
    ]
    scores, places = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return scores, places + part.start


def search_on_ray(processes: int) -> Search:
    """Parts are searched by so many workers of the Ray cluster; 0: by one for each of its CPUs.

    ProjectError where there is no cluster, or where a part can't be searched.
    """

    def search(parts: Sequence[Part]) -> Generator[Found, None, None]:
        from embed_assets.resources.ray_workers import ray_workers

        if len(parts) == 1:  # no worker is worth waiting for
            yield from search_here(parts)
            return
        with ray_workers(processes, len(parts), SECONDS_FOR_A_PART, None) as workers:
            for outcome in workers.map(best_of, parts):
                if outcome.result is None:
                    why = outcome.failure and outcome.failure.error
                    raise ProjectError(f"Hard negatives can't be mined on the Ray cluster: {why}.")
                yield outcome.result

    return search


def _mined(
    search: Search,
    asked: np.ndarray,
    most: np.ndarray,
    chunks: np.ndarray,
    no_negatives: Sequence[Sequence[int]],
    count: int,
) -> list[list[int]]:
    """Places of at most `count` chunks for each question, the best first."""
    parts, best = _parts(asked, most, chunks, no_negatives, count), _nothing(len(asked), count)
    with (
        progress_bar("Mining hard negatives", len(chunks), "chunk") as bar,
        closing(search(parts)) as searched,
    ):
        for part, found in zip(parts, searched, strict=True):
            best = _better(best, found)
            bar.update(len(part.chunks))
    return [places[scores > -np.inf].tolist() for scores, places in zip(*best, strict=True)]


def _parts(
    asked: np.ndarray,
    most: np.ndarray,
    chunks: np.ndarray,
    no_negatives: Sequence[Sequence[int]],
    count: int,
) -> list[Part]:
    """All chunks in parts. no_negatives: by question, places of chunks."""
    sizes = [len(places) for places in no_negatives]
    of_question = np.repeat(np.arange(len(sizes)), sizes)
    ruled_out = np.stack([of_question, np.concatenate([[], *no_negatives]).astype(int)])
    ruled_out = ruled_out[:, np.argsort(ruled_out[1], kind="stable")]
    starts = [*range(0, len(chunks), CHUNKS), len(chunks)]
    cuts = np.searchsorted(ruled_out[1], starts)
    return [
        Part(
            asked,
            most,
            chunks[start:stop],
            ruled_out[:, first:last] - np.array([[0], [start]]),
            count,
            start,
        )
        for (start, stop), (first, last) in zip(pairwise(starts), pairwise(cuts), strict=True)
    ]


def _best_of_some(part: Part, chunks: np.ndarray, rows: slice) -> Found:
    """As `best_of`, of some questions. chunks: of the part, normalised."""
    scores = part.questions[rows] @ chunks.T
    of_question, of_chunk = part.ruled_out
    here = (of_question >= rows.start) & (of_question < rows.stop)
    scores[of_question[here] - rows.start, of_chunk[here]] = -np.inf
    scores[scores > part.most[rows, np.newaxis]] = -np.inf
    count = min(part.count, len(chunks))
    places = np.argpartition(scores, len(chunks) - count, axis=1)[:, len(chunks) - count :]
    best = np.take_along_axis(scores, places, axis=1), places
    return _better(_nothing(len(scores), part.count), best)


def _nothing(questions: int, count: int) -> Found:
    return np.full((questions, count), -np.inf), np.zeros((questions, count), dtype=int)


def _better(one: Found, other: Found) -> Found:
    """The best of both, the best first, as many as `one` has of each question."""
    scores, places = (np.concatenate(both, axis=1) for both in zip(one, other, strict=True))
    order = np.lexsort((places, -scores), axis=1)[:, : one[0].shape[1]]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(norms, 1e-12)
