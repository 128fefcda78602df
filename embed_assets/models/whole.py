"""Whether the files of a version are whole, by their headers and sizes; or byte by byte."""

import json
from pathlib import Path

from embed_assets.models.files import DAMAGED, NoModelError, tokenizer_file

WEIGHTS, TABLE = "*.safetensors", "*.parquet"
PARQUET = b"PAR1"
"""What a Parquet file begins and ends with."""


def why_broken(folder: Path, *, deep: bool = False) -> str | None:
    """What is wrong with the folder of a model, in words; None where nothing is.

    deep: whether every weight is read.
    """
    if not folder.is_dir():
        return f"{folder} is gone"
    weights = sorted(folder.rglob(WEIGHTS))
    if not weights:
        return f"{folder} has no weights"
    try:
        for file in sorted(folder.rglob("*.json")):
            _check_json(file)
        tokenizer_file(str(folder))
        for file in weights:
            _check_weights(file, deep=deep)
        for file in sorted(folder.rglob(TABLE)):
            _check_table(file)
    except (OSError, ValueError, NoModelError) as error:
        return str(error)
    except DAMAGED as error:
        return f"{folder}: its JSON files are damaged ({type(error).__name__}: {error})"
    return None


def _check_json(file: Path) -> None:
    """ValueError where a file is no JSON."""
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def _check_weights(file: Path, *, deep: bool) -> None:
    """ValueError where a file of weights is cut off or its header is none.

    Its header is JSON, its length before it in 8 bytes.
    https://huggingface.co/docs/safetensors/index#format
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 + length:
            raise ValueError(f"{file} is cut off, or holds no weights")
        try:
            header = json.loads(opened.read(length))
            ends = [t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(f"{file} holds no weights") from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError(f"{file} is cut off")
    if deep:
        _check_numbers(file)


def _check_numbers(file: Path) -> None:
    """ValueError where a weight is no number."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise ValueError(f"{file}: {name} has values that are no numbers")
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None


def _check_table(file: Path) -> None:
    """ValueError where a Parquet file is cut off."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        begins = opened.read(4)
        opened.seek(max(0, size - 4))
        if size < 3 * len(PARQUET) or {begins, opened.read()} != {PARQUET}:
            raise ValueError(f"{file} is cut off, or is no Parquet file")
