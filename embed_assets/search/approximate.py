"""An approximate index of very many embeddings, by LanceDB: it gives candidates, which are then
ordered by their exact cosines.

Rows stand in partitions of neighbours, each number of a vector in four bits (IVF with RaBitQ: Gao &
Long 2024). Chosen on a million made-up vectors: benchmarks/search.py, docs/results.md.
"""

import errno
import logging
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed_assets.terminal import progress_bar

IDENTITY = "lance 1"
"""What identifies how such an index is made; to be changed where that changes."""
PACKAGE = "lancedb"
TABLE = "vectors"
AT_ONCE = 16_384
"""Embeddings in memory at a time."""
PARTITION = 4096
"""Rows of a partition, about."""
LEAST_LOOKED_THROUGH, SHARE = 256, 4
"""Partitions that a query looks through: all of a million rows, from then on one in four."""
BITS = 4
CANDIDATES_PER_RESULT = 4
MOST_CANDIDATES = 20_000
"""Beyond so many, going through all embeddings takes as long."""

_log = logging.getLogger(__name__)


def lancedb_is_there(needed: str) -> bool:
    """Whether the package is installed. If not, a warning says what it is needed for."""
    there = find_spec(PACKAGE) is not None
    if not there:
        _log.warning(
            "%s is searched exactly, and slowly: it needs the package %s. "
            "pip install 'embed_assets[lance]'",
            needed,
            PACKAGE,
        )
    return there


class ApproximateIndex:
    """An approximate index that is open, for any number of threads.

    LanceDB reads its files as it goes. Where they are gone, since another index took their place,
    there are no candidates from then on.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        """Reads nothing yet. rows: how many embeddings it is of."""
        self._folder, self._lost = folder, False
        self._looked_through = max(LEAST_LOOKED_THROUGH, rows // PARTITION // SHARE)

    @cached_property
    def _table(self) -> Any:
        import lancedb

        if not self._folder.is_dir():  # LanceDB would make it
            raise FileNotFoundError(self._folder)
        return lancedb.connect(self._folder).open_table(TABLE)

    def candidates(
        self, query: NDArray[np.float32], k: int, hidden: int = 0
    ) -> NDArray[np.int64] | None:
        """Rows among which the k nearest to a query likely are, ascending; None: look at all.

        hidden: how many rows don't count. They are among the candidates.
        """
        limit = CANDIDATES_PER_RESULT * k + hidden
        if self._lost or limit > MOST_CANDIDATES:
            return None
        try:
            asked = self._table.search(_padded(query[np.newaxis])[0]).distance_type("cosine")
            asked = asked.nprobes(self._looked_through).limit(limit).select(["row", "_distance"])
            rows = np.sort(asked.to_arrow()["row"].to_numpy())
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            self._lost = True
            _log.warning("%s can't be read, and all is searched exactly: %s", self._folder, error)
            return None
        return rows if len(rows) >= k + hidden else None


def write_approximate(folder: Path, vectors: NDArray[np.float32]) -> None:
    """Write the approximate index of embeddings to a new folder.

    vectors: (rows, size), of length 1; memory-mapped, they are read in blocks. OSError where
    the disk doesn't take it.
    """
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfRq

    size = _padded(vectors[:1]).shape[1]
    vector = pa.list_(pa.float32(), size)
    schema = pa.schema([pa.field("row", pa.int64()), pa.field("vector", vector)])

    def blocks() -> Iterator[pa.RecordBatch]:
        with progress_bar("Handing embeddings to LanceDB", len(vectors), "chunk") as bar:
            for start in range(0, len(vectors), AT_ONCE):
                block = _padded(vectors[start : start + AT_ONCE])
                rows = pa.array(np.arange(start, start + len(block)))
                values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), size)
                yield pa.RecordBatch.from_arrays([rows, values], schema=schema)
                bar.update(len(block))

    partitions = max(1, len(vectors) // PARTITION)
    how = IvfRq(distance_type="cosine", num_partitions=partitions, num_bits=BITS)
    try:
        table = lancedb.connect(folder).create_table(TABLE, blocks(), schema=schema)
        with progress_bar("Grouping them by nearness", partitions, "partition") as bar:
            table.create_index("vector", config=how)
            bar.update(partitions)
    except RuntimeError as error:  # as which LanceDB tells of a full disk
        raise OSError(errno.EIO, str(error), str(folder)) from error


def _padded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings with zeros behind, which change no cosine: RaBitQ wants sizes in eights."""
    return np.pad(vectors, ((0, 0), (0, -vectors.shape[1] % 8)))
