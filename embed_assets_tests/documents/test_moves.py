"""Which moves of many can be made before the rest."""

from embed_assets.documents.folder import first_moves


def test_no_move_takes_the_place_of_one_that_is_left_for_later():
    chain = {f"f{n + 1}": f"f{n}" for n in range(100)}
    chosen = first_moves(chain, 30)
    assert len(chosen) == 30
    left = set(chain.values()) - set(chosen.values())
    assert not left & set(chosen)


def test_those_that_swapped_places_move_together():
    ring = {f"f{n}": f"f{(n + 1) % 5}" for n in range(5)}
    assert first_moves(ring, 2) == ring


def test_of_few_moves_all_are_made():
    assert first_moves({"a": "b", "c": "d"}, 128) == {"a": "b", "c": "d"}
