"""A model's files as all read them: older sentence-transformers, vLLM, text-embeddings-inference.

sentence-transformers 6 writes other names of modules and other keys, and reads both. vLLM looks for
pooling and normalisation by the usual names in `modules.json`; text-embeddings-inference asks for
`pooling_mode_…` and `max_seq_length`.
"""

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

from embed_assets.models.card import UNLIMITED
from embed_assets.models.files import MODULES, ROUTER_CONFIG

USUAL = "sentence_transformers.models"
"""Where every release has its modules."""
POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""The usual key of each way of pooling."""
TRANSFORMER_CONFIG = "sentence_bert_config.json"
OF_TEXT = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""What release 6 says of a transformer that reads text, which all take for granted."""


def write_usual_form(folder: Path, token_limit: float) -> None:
    """Rewrite the files of a model's folder; what can't be said in the usual form stays.

    token_limit: tokens that the model reads of a text.
    """
    _rewrite(folder / MODULES, lambda rows: [row | {"type": _usual(row["type"])} for row in rows])
    for file in folder.rglob(ROUTER_CONFIG):
        _rewrite(file, _router)
    for file in folder.rglob("config.json"):
        _rewrite(file, _pooling)
    for file in folder.rglob(TRANSFORMER_CONFIG):
        _rewrite(file, lambda said: _transformer(said, token_limit))


def _rewrite(file: Path, change: Any) -> None:
    known = json.loads(file.read_text(encoding="utf-8"))
    if (changed := change(known)) != known:
        file.write_text(json.dumps(changed, indent=2), encoding="utf-8")


def _usual(kind: str) -> str:
    """The usual name of a module's class, if it is one of sentence-transformers' own."""
    name = kind.rpartition(".")[2]
    own = kind.startswith("sentence_transformers.") and hasattr(import_module(USUAL), name)
    return f"{USUAL}.{name}" if own else kind


def _router(said: dict[str, Any]) -> dict[str, Any]:
    return said | {"types": {name: _usual(kind) for name, kind in said["types"].items()}}


def _pooling(said: dict[str, Any]) -> dict[str, Any]:
    """Several ways side by side stay: the usual form knows one order of them alone."""
    mode = said.get("pooling_mode")
    if not isinstance(mode, str) or mode not in POOLING or "embedding_dimension" not in said:
        return said
    rest = {k: v for k, v in said.items() if k not in ("pooling_mode", "embedding_dimension")}
    flags = {key: way == mode for way, key in POOLING.items()}
    return {"word_embedding_dimension": said["embedding_dimension"], **flags, **rest}


def _transformer(said: dict[str, Any], token_limit: float) -> dict[str, Any]:
    if all(said.get(key, value) == value for key, value in OF_TEXT.items()):
        said = {key: value for key, value in said.items() if key not in OF_TEXT}
    if not math.isfinite(token_limit) or token_limit >= UNLIMITED:
        return said
    return {"max_seq_length": int(token_limit), "do_lower_case": False} | said
