"""Pictures so small that Dagster shows them without a click."""

import base64

from embed_assets.charts import BLUE, INLINE, bars_in_markdown


def drawn(markdown: str) -> str:
    return base64.b64decode(markdown.partition("base64,")[2].removesuffix(")")).decode()


def test_bars_are_as_long_as_their_scores_and_one_stands_out():
    svg = drawn(bars_in_markdown("NDCG@10", {"base": 0.5, "v2": 1.0}, "v2"))
    assert "h100v15" in svg
    assert f"fill='{BLUE}' d='M110 23h200v15" in svg
    assert svg.count(BLUE) == 1
    assert ">0.500<" in svg


def test_however_many_models_there_are_the_picture_stays_small_with_base_and_the_marked_one():
    scores = {"base": 0.1, "v12": 0.2} | {f"openai:text-embedding-<{n}>": n / 30 for n in range(30)}
    markdown = bars_in_markdown("NDCG@10 on test_unseen_documents", scores, "v12")
    assert len(markdown) < INLINE
    svg = drawn(markdown)
    assert ">base<" in svg
    assert ">v12<" in svg
    assert ">openai:text-emb…<" in svg
