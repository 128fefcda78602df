"""How documents are grouped into Dagster's partitions and runs. Only this module knows, both ways.

The tables and the ledger are by document, however documents are grouped: another grouping makes
nothing stale.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

DOCUMENTS_PER_RUN = 32
"""So few that a killed run costs minutes, and so many that the seconds which a run costs to start
don't matter."""
NAMED = "embed_assets/documents"
"""Tag of a run that makes some documents of its partitions alone: how their ids end."""
END = 8
"""Characters of an id's end: those of its hash, which say nothing of the document's name. Postgres
refuses a tag of 2.7 KB."""


@dataclass(frozen=True)
class Grouping:
    """partitions: how many the documents share, by a hash of their ids. 0: each has its own.

    per_run: documents that a run makes, at most.
    """

    partitions: int = 0
    per_run: int = DOCUMENTS_PER_RUN

    def partition_of(self, document_id: str) -> str:
        """Key of the partition that a document is in.

        That of a shared one says how many there are: by another grouping no key means other
        documents. It has a sign that no document's id has.
        """
        if not self.partitions:
            return document_id
        hashed = hashlib.sha256(document_id.encode()).digest()
        number = 1 + int.from_bytes(hashed[:8], "big") % self.partitions
        return f"group_{number:0{len(str(self.partitions))}}_of_{self.partitions}"

    def partitions_of(self, document_ids: Iterable[str]) -> list[str]:
        """Keys of the partitions that documents are in, in the order of the documents."""
        return list(dict.fromkeys(map(self.partition_of, document_ids)))

    def without(self, partitions: Iterable[str], document_ids: Iterable[str]) -> list[str]:
        """Those partitions in which none of these documents is."""
        meant = set(map(self.partition_of, document_ids))
        return [key for key in partitions if key not in meant]

    def tags(self, document_ids: Iterable[str]) -> dict[str, str]:
        """Tags by which a run over the partitions of documents makes these alone."""
        return {NAMED: " ".join(key[-END:] for key in document_ids)} if self.partitions else {}

    def documents_of(
        self,
        partitions: Sequence[str],
        tags: Mapping[str, str],
        known: Callable[[], Collection[str]],
    ) -> list[str]:
        """Documents that a run with these tags makes; without NAMED, all in its partitions.

        known: the documents that there are, asked only where partitions don't say it.
        """
        if not self.partitions:
            return list(partitions)
        chosen, named = set(partitions), set(tags[NAMED].split()) if NAMED in tags else None
        meant = (key for key in known() if named is None or key[-END:] in named)
        return [key for key in meant if self.partition_of(key) in chosen]


def is_shared(partition: str) -> bool:
    """Whether a key is that of a partition that documents share, by whatever grouping."""
    return "_" in partition


ONE_EACH = Grouping()
"""Each document is a partition of its own."""
