"""Which documents with text never arrive among the questions."""

import polars as pl

from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

_MISSING = """
WITH read AS (SELECT DISTINCT document_id FROM parsed_markdown WHERE parser_status = 'SUCCESS'),
stages AS (
    SELECT document_id, CASE
        WHEN document_id NOT IN (SELECT document_id FROM chunks) THEN 'no chunks'
        WHEN document_id NOT IN (
            SELECT document_id FROM materializations WHERE asset = 'synthetic_questions'
        ) THEN 'nothing was asked about it yet'
        WHEN ? AND document_id NOT IN (
            SELECT document_id FROM synthetic_questions WHERE question <> ''
        ) THEN 'no questions'
    END AS missing FROM read
)
SELECT coalesce(path, document_id) AS path, missing
FROM stages LEFT JOIN raw_pdfs USING (document_id) WHERE missing IS NOT NULL ORDER BY path
"""


def missing_downstream(warehouse: Warehouse, settings: Settings) -> pl.DataFrame:
    """Path of each document that has text, and what is missing of it: `path`, `missing`.

    Questions that a filter dropped were there; without a generator none are missed.
    """
    return warehouse.read(_MISSING, [settings.questions != "none"])
