"""The room of deleted rows is freed, and many small files become few."""

import time
from datetime import timedelta
from typing import Any

from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

MB = 1_000_000


def compact(settings: Settings, keep: timedelta) -> tuple[dict[str, Any], str]:
    """Compact the tables; gives what `compact` prints, and the same for a person.

    keep: how long a DuckLake can still say what stood in it before.
    """
    warehouse, began = Warehouse.of(settings), time.monotonic()
    before = warehouse.size_bytes
    warehouse.compact(keep)
    after, seconds = warehouse.size_bytes, time.monotonic() - began
    summary = {
        "warehouse": warehouse.name,
        "bytes_before": before,
        "bytes_after": after,
        "seconds": round(seconds, 2),
    }
    return summary, f"{warehouse.name}: {before / MB:,.1f} MB before, {after / MB:,.1f} MB now."
