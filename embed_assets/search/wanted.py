"""The model that search is to be prepared for: the champion, or the base model without one."""

from dataclasses import dataclass

from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard, model_card, version_card
from embed_assets.models.files import DAMAGED
from embed_assets.models.identity import model_identity, task_identity
from embed_assets.resources.current_index import read_current
from embed_assets.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """A model to search with. version: None for the base model."""

    card: ModelCard
    version: str | None

    @property
    def identity(self) -> str:
        """Digest of all that decides its embeddings."""
        return model_identity(self.card)

    @property
    def of_chunks(self) -> str:
        """The same for documents alone: a query adapter's are those of its base."""
        return task_identity(self.card, "document")


def wanted_model(settings: Settings) -> Wanted | None:
    """The model that search is to be prepared for; None where it is not known, or not there."""
    try:
        champion = read_current(settings.home).champion
        if champion is None and any(settings.models.glob("v*")):
            return None  # whoever asks MLflow next notes which one it is
        if not champion:
            return Wanted(model_card(settings), None)
        folder = settings.models / f"v{champion}"
        if not folder.is_dir():
            return None
        return Wanted(version_card(f"v{champion}", folder), champion)
    except (ProjectError, *DAMAGED):
        return None
