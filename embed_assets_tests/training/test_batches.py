from collections import Counter
from dataclasses import replace

import pytest
from datasets import Dataset

from embed_assets.training.batches import Place, batch_sampler, group_pairs, pairs_of_epoch


def place(number: int, *, chunk: int, negative: int | None = None, anchor: str = "") -> Place:
    """A pair of a chunk whose neighbours are the chunks before and after it."""
    shown = {f"c{chunk}"} | ({f"c{negative}"} if negative is not None else set())
    related = {f"c{chunk + step}" for step in (-1, 0, 1)}
    return Place(
        anchor or f"question {number}", f"c{chunk}", frozenset(shown), frozenset(related), chunk
    )


PLACES = [place(i, chunk=i // 4) for i in range(400)]


def clashes(batch: list[int], places: list[Place]) -> list[tuple[int, int]]:
    return [
        (a, b)
        for a in batch
        for b in batch
        if a != b
        and (
            (places[a].shown - {places[b].positive}) & places[b].related
            or places[b].positive in places[a].shown - {places[a].positive}
            or places[a].anchor == places[b].anchor
        )
    ]


def chunks_of(batch: list[int], places: list[Place]) -> Counter[str]:
    return Counter(places[i].positive for i in batch)


def test_no_batch_holds_pairs_of_neighbours() -> None:
    batches = group_pairs(PLACES, 16, seed=1)
    assert max(map(len, batches)) == 16
    assert not [pair for batch in batches for pair in clashes(batch, PLACES)]


def test_pairs_of_a_chunk_stand_together() -> None:
    held = [chunks_of(batch, PLACES) for batch in group_pairs(PLACES, 16, seed=1, together=4)]
    assert sum(len(chunks) for chunks in held) < 1.2 * 100, "100 chunks, few in two batches"


def test_a_chunk_with_many_pairs_leaves_room_for_others() -> None:
    places = [place(i, chunk=3 * i) for i in range(40)] + [place(i, chunk=0) for i in range(40, 60)]
    for together in (1, 3):
        batches = group_pairs(places, 16, seed=1, together=together)
        assert max(max(chunks_of(batch, places).values()) for batch in batches) == together


def test_no_hard_negative_stands_beside_a_pair_that_it_answers() -> None:
    places = [place(i, chunk=2 * i, negative=(2 * i + 6) % 80) for i in range(40)]
    batches = group_pairs(places, 8, seed=1)
    assert batches
    assert not [pair for batch in batches for pair in clashes(batch, places)]


def test_a_question_asked_of_two_chunks_stands_in_two_batches() -> None:
    places = [place(i, chunk=3 * i, anchor="the same" if i < 2 else "") for i in range(8)]
    for seed in range(5):
        assert not any({0, 1} <= set(batch) for batch in group_pairs(places, 4, seed))


def test_every_pair_is_seen_once_in_an_epoch() -> None:
    seen = [i for batch in group_pairs(PLACES, 16, seed=1) for i in batch]
    assert len(seen) == len(set(seen))
    assert len(seen) >= 0.98 * len(PLACES)


def test_a_batch_of_a_few_leftovers_is_no_step_of_its_own() -> None:
    places = [place(i, chunk=3 * i) for i in range(66)]
    assert [len(batch) for batch in group_pairs(places, 32, seed=0)] == [32, 32]
    assert [len(batch) for batch in group_pairs(places[:5], 32, seed=0)] == [5]


def test_the_seed_decides_the_batches() -> None:
    first = group_pairs(PLACES, 16, seed=1)
    assert first == group_pairs(PLACES, 16, seed=1)
    assert first != group_pairs(PLACES, 16, seed=2)


@pytest.mark.parametrize("extractive", [0, 10, 200, 300, 301, 1000])
def test_extractive_pairs_take_turns_over_the_epochs_and_others_are_in_each(
    extractive: int,
) -> None:
    places = [replace(one, extractive=i % 4 != 0) for i, one in enumerate(PLACES)]
    own = {i for i, one in enumerate(places) if not one.extractive}
    epochs = [pairs_of_epoch(places, number, extractive, seed=1) for number in range(5)]
    per_epoch = extractive if 0 < extractive < 300 else 300
    times = Counter(i for epoch in epochs for i in epoch)
    assert all(epoch == sorted(epoch) and own <= set(epoch) for epoch in epochs)
    assert {len(epoch) for epoch in epochs} == {100 + per_epoch}
    taken = [times[i] for i in range(400) if i not in own]
    assert sum(taken) == 5 * per_epoch
    assert max(taken) - min(taken) <= 1, "none is taken again before all are"


@pytest.mark.parametrize("count", [60, 100, 150])
def test_an_epoch_takes_a_pair_of_every_chunk_before_a_second_of_any(count: int) -> None:
    places = [replace(one, extractive=True) for one in PLACES]  # four of each of 100 chunks
    for epoch in range(5):
        held = chunks_of(pairs_of_epoch(places, epoch, count, seed=1), places)
        assert len(held) == min(count, 100)
        assert max(held.values()) == -(-count // 100)


def test_the_sampler_s_epochs_hold_the_pairs_whose_turn_it_is() -> None:
    places = [replace(place(i, chunk=3 * i), extractive=True) for i in range(400)]
    dataset = Dataset.from_dict({"anchor": [one.anchor for one in places]})
    sampler = batch_sampler(dataset, places, batch_size=8, seed=1, epochs=4, extractive=100)
    seen = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 13
        assert not [pair for batch in batches for pair in clashes(batch, places)]
        assert {i for batch in batches for i in batch} == {
            *pairs_of_epoch(places, epoch, 100, seed=1)
        }
        seen += [i for batch in batches for i in batch]
    assert sorted(seen) == list(range(400))


def test_batches_pad_less_than_shuffled_ones() -> None:
    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(PLACES[i].length for i in batch) for batch in batches)

    grouped = group_pairs(PLACES, 16, seed=1)
    mixed = [list(range(start, 400, 25)) for start in range(25)]
    assert padded(grouped) < 0.85 * padded(mixed)


@pytest.mark.parametrize("full", [False, True])
def test_a_chunk_with_more_pairs_than_batches_hold_loses_some_rather_than_stand_alone(
    full: bool,
) -> None:
    places = [place(i, chunk=0) for i in range(20)]
    places += [place(i, chunk=3 * i) for i in range(20, 32)]
    batches = group_pairs(places, 8, seed=0, full=full)
    assert batches
    assert all(len(chunks_of(batch, places)) > 1 for batch in batches)
    assert not full or all(len(batch) == 8 for batch in batches)
    assert not [pair for batch in batches for pair in clashes(batch, places)]


def test_chunks_that_stand_twice_each_teach_what_one_of_each_would() -> None:
    """The loss differs by log 2, the gradients don't: sentence-transformers' own loss."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    generator = torch.Generator().manual_seed(0)
    questions = torch.randn(12, 8, generator=generator)
    chunks = torch.randn(6, 8, generator=generator, requires_grad=True)
    of = torch.arange(12) // 2
    ranking = MultipleNegativesRankingLoss(SentenceTransformer(modules=[torch.nn.Identity()]))
    twice = ranking.compute_loss_from_embeddings([questions, chunks[of]], torch.empty(0))
    (gradient,) = torch.autograd.grad(twice, chunks)
    cosines = torch.nn.functional.normalize(questions) @ torch.nn.functional.normalize(chunks).T
    once = torch.nn.functional.cross_entropy(ranking.scale * cosines, of)
    (expected,) = torch.autograd.grad(once, chunks)
    assert torch.allclose(twice - once, torch.tensor(2.0).log(), atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5)
