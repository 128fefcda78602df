"""The card of a version: README.md in its folder, as the Hugging Face Hub shows it.

sentence-transformers makes it, from its own data and our template. It says of what data the version
is made, how good it is and what speaks against it, and quotes no document: a card is published, and
documents must be forgettable.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from embed_assets.errors import ProjectError, one_line
from embed_assets.evaluation.significance import LARGEST_P_VALUE, Verdict
from embed_assets.models.card import EMBEDDED, ModelCard
from embed_assets.models.encoder import load_model
from embed_assets.models.files import NoModelError, find_file
from embed_assets.models.names import told_name
from embed_assets.models.registry import newest_model, trained_version
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings, Training
from embed_assets.training.lineage import version_lineage
from embed_assets.wording import watt_hours

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformerModelCardData

CODE = re.compile(r"[\w.+-]{1,40}")
CARD = "README.md"
TEMPLATE = Path(__file__).with_name("hub_card.md.jinja")
HYPERPARAMETERS = (
    *(name for name in Training.model_fields if name not in ("retrain_from", "max_pairs")),
    *("token_limit", "precision", "warmup_share", "dimensions"),
)
"""Of the settings of a version: those that say how it was trained. None of them is a path."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a comparison says of a version.

    against: rows of model_comparisons, the headline split first, base and baselines. titles: of the
    splits.
    """

    verdict: str
    reservations: Sequence[str]
    against: pl.DataFrame
    titles: Mapping[str, str]

    @property
    def splits(self) -> list[str]:
        """In the order in which they are shown."""
        return self.against["split"].unique(maintain_order=True).to_list()

    def rows(self, split: str, *, base: bool) -> list[dict[str, Any]]:
        """Rows of a split: of the base at each dimension, or of the baselines."""
        of_base = pl.col("model") == "base"
        return self.against.filter(of_base if base else ~of_base, split=split).to_dicts()


def write_hub_card(
    warehouse: Warehouse, settings: Settings, version: str, judgement: Judgement | None = None
) -> Path:
    """Write the card of a version into its folder, whole or not at all; its path.

    judgement: nothing until the version has been compared. ProjectError if there is no such
    version, or its folder is gone.
    """
    from sentence_transformers.base.model_card import generate_model_card

    row = newest_model(warehouse, version)
    known = trained_version(row)
    record = version_lineage(warehouse, settings, row["version"])
    model = load_model(known.card.source)
    model.model_card_data = _card_data(settings, model, known.card, record, judgement)
    file = known.folder / CARD
    unfinished = file.with_name(f"{CARD}.unfinished")
    unfinished.write_text(generate_model_card(model), encoding="utf-8")
    unfinished.replace(file)
    return file


def keep_card(
    warehouse: Warehouse,
    settings: Settings,
    version: str,
    warn: Callable[[str], None],
    judgement: Judgement | None = None,
) -> Path | None:
    """Like `write_hub_card`; where that can't be done, `warn` is told: no work fails for a card."""
    try:
        return write_hub_card(warehouse, settings, version, judgement)
    except Exception as error:  # of whatever library: a version is worth more than its card
        reason = (
            str(error) if isinstance(error, ProjectError) else f"{type(error).__name__}: {error}"
        )
        warn(f"The card of version {version} could not be written: {one_line(reason)}")
    return None


def _card_data(
    settings: Settings,
    model: Any,
    card: ModelCard,
    record: Mapping[str, Any],
    judgement: Judgement | None,
) -> "SentenceTransformerModelCardData":
    """sentence-transformers' data of a model, with what our template shows beside it."""
    from sentence_transformers import SentenceTransformerModelCardData

    shown = {
        "record": record,
        "card": card,
        "base_name": told_name(record["base"]),
        "energy": watt_hours(record["energy_wh"] or 0),
        "pairs_by": _pairs_by_generator(record),
        "hyperparameters": _hyperparameters(record),
        "dimensions": (record["settings"] or {}).get("dimensions") or [],
        "judgement": judgement,
        "too_few": judgement and _too_few(judgement),
        "largest_p_value": LARGEST_P_VALUE,
        "domain": (record["settings"] or {}).get("question_domain") or "",
        "model-index": _model_index(_title(settings, record), judgement),
    }

    class VersionCardData(SentenceTransformerModelCardData):
        def get_model_specific_metadata(self) -> dict[str, Any]:
            """What the template finds beside the data that all cards have."""
            return super().get_model_specific_metadata() | shown

    of_base = _front_matter(record["base"])
    data = VersionCardData(
        language=_codes(of_base.get("language")),
        license=_codes(of_base.get("license")),
        model_name=_title(settings, record),
        local_files_only=True,
        generate_widget_examples=False,
    )
    data.template_path = TEMPLATE
    data.base_model = _hub_name(record["base"])
    data.base_model_revision = record["base_revision"]
    if (record["settings"] or {}).get("method") != "adapter":
        data.set_losses(_losses(model, shown["dimensions"]))
    else:
        data.set_losses([])
    data.add_tags([f"dataset_size:{record['questions']}", "embed-assets"])
    data.register_model(model)
    return data


def _title(settings: Settings, record: Mapping[str, Any]) -> str:
    return f"{settings.project} v{record['version']}"


def _hub_name(base: str) -> str | None:
    """What the hub calls a base model; None of a person's own folder."""
    if base.removeprefix("sentence-transformers/") == EMBEDDED:
        return f"sentence-transformers/{EMBEDDED}"
    is_own = Path(base).expanduser().is_dir() or base.startswith((".", "/", "~"))
    return None if is_own or base.count("/") != 1 else base


def _front_matter(base: str) -> dict[str, Any]:
    """What a base model's own card says of its language and license, where there is one."""
    import yaml
    from huggingface_hub import ModelCard as HubCard

    from embed_assets.models.card import model_source

    try:
        file = find_file(model_source(base), CARD)
        return HubCard.load(file).data.to_dict() if file else {}
    except (NoModelError, ValueError, yaml.YAMLError):  # it is gone, or its card can't be read
        return {}


def _codes(named: Any) -> Any:
    """What a base model's card calls its languages or license, where these are codes and no text.

    Whoever wrote that card is nobody whose markdown belongs into ours.
    """
    names = named if isinstance(named, list) else [named]
    return named if all(isinstance(n, str) and CODE.fullmatch(n) for n in names) else None


def _losses(model: Any, dimensions: Sequence[int]) -> list[Any]:
    """For what to cite."""
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )

    loss = MultipleNegativesRankingLoss(model)
    sizes = list(dimensions) or [int(model.get_embedding_dimension())]
    return [MatryoshkaLoss(model, loss, matryoshka_dims=sizes), loss]


def _pairs_by_generator(record: Mapping[str, Any]) -> dict[str, int]:
    """Pairs that a version has learned from, by who wrote the question; most first."""
    file = Path(record["pairs"] or "")
    if not file.is_file():
        return {}
    counted = pl.read_parquet(file, columns=["generator"])["generator"].value_counts(sort=True)
    return {generator or "unknown": count for generator, count in counted.iter_rows()}


def _hyperparameters(record: Mapping[str, Any]) -> dict[str, Any]:
    used = record["settings"] or {}
    return {name: used[name] for name in HYPERPARAMETERS if used.get(name) is not None}


def _too_few(judgement: Judgement) -> list[str]:
    """Titles of the splits that are too small for a verdict."""
    few = judgement.against.filter(verdict=Verdict.TOO_FEW, model="base")
    return [judgement.titles[split] for split in few["split"].unique(maintain_order=True)]


def _model_index(name: str, judgement: Judgement | None) -> list[dict[str, Any]]:
    """NDCG@10 by split and dimension, as the hub reads it."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    if judgement is None:
        return []
    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=split,
            dataset_name=judgement.titles[split],
            metric_type=f"dim_{row['dimension']}_cosine_ndcg@10",
            metric_name=f"NDCG@10 at {row['dimension']} dimensions",
            metric_value=row["tuned"],
        )
        for split in judgement.splits
        for row in judgement.rows(split, base=True)
    ]
    return eval_results_to_model_index(name, results)
