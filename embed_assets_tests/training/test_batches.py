from embed_assets.training.batches import group_pairs

ANCHORS = [f"question {i}" for i in range(400)]
POSITIVES = [f"chunk {i // 4} " + "word " * (i // 4) for i in range(400)]


def test_no_batch_holds_a_chunk_twice() -> None:
    for batch in group_pairs(ANCHORS, POSITIVES, 32, seed=1):
        assert len({POSITIVES[i] for i in batch}) == len(batch)


def test_every_pair_is_seen_once_in_an_epoch() -> None:
    seen = [i for batch in group_pairs(ANCHORS, POSITIVES, 32, seed=1) for i in batch]
    assert len(seen) == len(set(seen))
    assert len(seen) >= 0.95 * len(ANCHORS)


def test_the_seed_decides_the_batches() -> None:
    first = group_pairs(ANCHORS, POSITIVES, 32, seed=1)
    assert first == group_pairs(ANCHORS, POSITIVES, 32, seed=1)
    assert first != group_pairs(ANCHORS, POSITIVES, 32, seed=2)


def test_batches_pad_less_than_shuffled_ones() -> None:
    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(len(POSITIVES[i]) for i in batch) for batch in batches)

    grouped = group_pairs(ANCHORS, POSITIVES, 32, seed=1)
    mixed = [list(range(start, 400, 13)) for start in range(13)]
    assert padded(grouped) < 0.75 * padded(mixed)


def test_a_chunk_with_more_pairs_than_batches_loses_some_rather_than_be_its_own_negative() -> None:
    positives = ["same"] * 20 + [f"other {i}" for i in range(12)]
    anchors = [f"question {i}" for i in range(32)]
    batches = group_pairs(anchors, positives, 8, seed=0)
    assert len(batches) <= 4
    assert all(len({positives[i] for i in batch}) == len(batch) > 1 for batch in batches)
