"""Encoding: texts a second of every way to run a model here, and how much of NDCG@10 each keeps.

Each way encodes documents and queries alike, on as many threads as torch takes. `before` is fp32 in
batches of 32 texts sorted by characters; `fp32` is what the project does: batches of 2,048 tokens,
sorted by tokens, a batch to each core. `in-turn` has those batches one after another, each on all
cores, and so have the other ways: they differ from it in arithmetic alone. Speed
is the best of three rounds in which the ways take turns: trust the ratio, not the rate. `kept` is
NDCG@10 over that of fp32, by dimension. `load` is what comes before the first text: reading,
exporting and quantising; of the first way it holds the imports too.

    python benchmarks/encoding.py --beir DIR [DIR ...] [--ways fp32 torch-int8] [--documents 500]

`--documents N` keeps the relevant documents of the queries and fills up to N with others;
`--queries N` takes N queries; both are drawn by a fixed seed. A way whose packages are missing says
which. They are: openvino-int8: `openvino nncf`; onnx-fp32, onnx-int8: `onnx onnxscript`.

What to expect. fp32 runs near what the cores can multiply, so only work saved speeds it up: less
padding (some 4 to 10 % of chunks' tokens, 20 to 40 % of questions') and activations that stay in
the cache (some 10 %). int8 gains where the processor multiplies bytes in one instruction (VNNI,
AMX: two to four times). AVX2 needs three instructions for four times the numbers: at most 1.3 times
faster in the two thirds that are matrix products, less what quantising costs. bf16 gains with AMX
or AVX512-BF16 only.

What came out (all-MiniLM-L6-v2, one core of a busy machine with AVX2 and no VNNI, 150 queries each,
300 contract pages of ohr_law and 400 abstracts of SciFact; 16 texts timed): torch-int8 1.3 to 1.5
times fp32, keeps 97.8 to 100.2 %; onnx-int8 1.4 to 1.5 times, keeps 98.5 to 100.6 %, and exports
for 18 s; openvino-int8 1.07 times, keeps 99.8 to 100.7 %. The forward pass alone, on two cores:
1.16, 1.15 and 1.08 times. None is both clearly faster and never below 99.5 %, so the project
encodes in fp32 or bf16 and offers no int8. fp32 against before: 1.2 to 1.3 then, when its batches
ran in turn; a batch to each core, on two idle cores: 1.21 and 1.05 times in-turn, 1.35 and 1.10
times before (128 and 100 contract pages of ohr_law). sentence-transformers'
own ONNX and OpenVINO need optimum-onnx and optimum-intel, which don't install beside transformers
5.23.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.retrieval import evaluate
from embed_assets.models import encoder as encoder_module
from embed_assets.models.card import (
    ModelCard,
    embedding_size,
    matryoshka_dimensions,
    model_card,
)
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.files import Task
from embed_assets.settings import Settings

ROUNDS = 3
Transform = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class InTurn(LocalEncoder):
    """Batches one after another, each on all cores."""

    def encode(self, texts: Sequence[str], task: Task, progress: str | None = None) -> np.ndarray:
        with mock.patch.object(encoder_module, "MOST_BATCHES_AT_ONCE", 1):
            return super().encode(texts, task, progress)


class ThirtyTwoAtATime(LocalEncoder):
    """The encoder as it was: 32 texts a batch, sorted by characters."""

    def encode(self, texts: Sequence[str], task: Task, progress: str | None = None) -> np.ndarray:
        prompt = self._card.prompt(task)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        embeddings = np.empty((len(texts), embedding_size(self._card.source)), dtype=np.float32)
        for start in range(0, len(texts), 32):
            batch = order[start : start + 32]
            embeddings[batch] = self._model.encode(
                [texts[i] for i in batch], prompt=prompt, batch_size=32, show_progress_bar=False
            )
        return embeddings


class LastHiddenState(torch.nn.Module):
    """A transformer as a function of two tensors (texts, tokens), to export."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.transformer(input_ids=input_ids, attention_mask=attention_mask)[0]


def example() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((4, 40), 100)
    return ids, torch.ones_like(ids)


def torch_int8(module: LastHiddenState, folder: Path) -> Transform:
    """Linear layers in int8, weights by output channel, activations by tensor as they come."""
    from torch.ao.quantization import quantize_dynamic
    from torch.ao.quantization.qconfig import per_channel_dynamic_qconfig

    return quantize_dynamic(copy.deepcopy(module), {torch.nn.Linear: per_channel_dynamic_qconfig})


def onnx_fp32(module: LastHiddenState, folder: Path) -> Transform:
    import onnxruntime

    file = folder / "model.onnx"
    if not file.exists():
        axes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", min=2, max=512)}
        torch.onnx.export(
            module,
            example(),
            str(file),
            input_names=["input_ids", "attention_mask"],
            dynamo=True,
            dynamic_shapes=(axes, axes),
            external_data=False,
            verbose=False,
        )
    return onnx_session(onnxruntime, file)


def onnx_int8(module: LastHiddenState, folder: Path) -> Transform:
    """Reduced range: without VNNI two products of 8 bits overflow the 16 that AVX2 adds them in."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx_fp32(module, folder)
    file = folder / "int8.onnx"
    quantize_dynamic(
        folder / "model.onnx",
        file,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    return onnx_session(onnxruntime, file)


def onnx_session(onnxruntime: Any, file: Path) -> Transform:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return torch.from_numpy(session.run(None, inputs)[0])

    return run


def openvino_fp32(module: LastHiddenState, folder: Path) -> Transform:
    import openvino  # pyright: ignore[reportMissingImports]

    return openvino_session(openvino, openvino.convert_model(module, example_input=example()))


def openvino_int8(module: LastHiddenState, folder: Path) -> Transform:
    """Weights in int8 by channel; activations too where the processor has VNNI or AMX."""
    import nncf  # pyright: ignore[reportMissingImports]
    import openvino  # pyright: ignore[reportMissingImports]

    model = openvino.convert_model(module, example_input=example())
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    return openvino_session(openvino, model)


def openvino_session(openvino: Any, model: Any) -> Transform:
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    )

    def run(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled([input_ids.numpy(), attention_mask.numpy()])[0])

    return run


RUNTIMES: Mapping[str, Callable[[LastHiddenState, Path], Transform]] = {
    "torch-int8": torch_int8,
    "onnx-fp32": onnx_fp32,
    "onnx-int8": onnx_int8,
    "openvino-fp32": openvino_fp32,
    "openvino-int8": openvino_int8,
}
WAYS = ("fp32", "in-turn", "before", "bf16", *RUNTIMES)


def encoder_of(way: str, card: ModelCard, folder: Path) -> LocalEncoder:
    if way == "before":
        return ThirtyTwoAtATime(card, "fp32")
    if way in ("fp32", "bf16"):
        return LocalEncoder(card, way)
    encoder = InTurn(card, "fp32")
    if way in RUNTIMES:
        transformer = encoder._model[0]
        run = RUNTIMES[way](LastHiddenState(transformer.auto_model.eval()), folder)

        def forward(features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            hidden = run(features["input_ids"], features["attention_mask"])
            return {**features, "token_embeddings": hidden}

        transformer.forward = forward
    return encoder


@dataclass(frozen=True)
class Slice:
    """Part of a BEIR task."""

    name: str
    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    relevant: Mapping[str, set[str]]


def slice_of(folder: Path, documents: int, queries: int) -> Slice:
    task = read_beir(folder)
    random = np.random.default_rng(0)
    asked = sorted(random.permutation(sorted(task.queries))[: queries or None].tolist())
    relevant = {query: task.relevant[query] & task.corpus.keys() for query in asked}
    answers = set().union(*relevant.values())
    others = random.permutation(sorted(task.corpus.keys() - answers)).tolist()
    kept = sorted(answers | set(others[: max(0, documents - len(answers)) if documents else None]))
    return Slice(
        name=folder.name,
        queries={query: task.queries[query] for query in asked},
        corpus={document: task.corpus[document] for document in kept},
        relevant=relevant,
    )


def ndcg_at_10(encoder: LocalEncoder, part: Slice, dimensions: Sequence[int]) -> dict[int, float]:
    found = evaluate(
        encoder.encode(list(part.queries.values()), "query"),
        encoder.encode(list(part.corpus.values()), "document"),
        list(part.queries),
        list(part.corpus),
        part.relevant,
        dimensions,
    )
    ndcg = found.scores.filter((pl.col("metric") == "ndcg") & (pl.col("k") == 10))
    return dict(ndcg.select("dimension", "score").iter_rows())


def load_encoders(ways: Sequence[str], card: ModelCard) -> dict[str, tuple[LocalEncoder, float]]:
    """Encoders by way, and the seconds until each was ready. A way that can't be is said."""
    ready = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            start = time.perf_counter()
            try:
                encoder = encoder_of(way, card, Path(folder))
            except ImportError as error:
                print(f"{way} is left out: pip install {error.name}")
                continue
            encoder.encode(["one text"], "document")
            ready[way] = encoder, time.perf_counter() - start
    return ready


def texts_per_second(
    encoders: Mapping[str, LocalEncoder], texts: Sequence[str]
) -> dict[str, float]:
    """The best of some rounds, in which the ways take turns."""
    best = dict.fromkeys(encoders, float("inf"))
    for _ in range(ROUNDS):
        for way, encoder in encoders.items():
            start = time.perf_counter()
            encoder.encode(texts, "document")
            best[way] = min(best[way], time.perf_counter() - start)
    return {way: len(texts) / seconds for way, seconds in best.items()}


def compare(
    card: ModelCard, encoders: Mapping[str, tuple[LocalEncoder, float]], part: Slice, timed: int
) -> None:
    """Print a row for each way; the first way is what the others are shares of."""
    dimensions = matryoshka_dimensions(embedding_size(card.source), None)
    texts = np.random.default_rng(0).permutation(list(part.corpus.values()))[:timed].tolist()
    rates = texts_per_second({way: encoder for way, (encoder, _) in encoders.items()}, texts)
    print(f"\n{part.name}: {len(part.corpus)} documents, {len(part.queries)} queries")
    print("| way | texts/s | of fp32 | load |" + "".join(f" kept {d} |" for d in dimensions))
    print("| --- | ---: | ---: | ---: |" + " ---: |" * len(dimensions))
    whole: dict[int, float] = {}
    for way, (encoder, load) in encoders.items():
        scores = ndcg_at_10(encoder, part, dimensions)
        whole = whole or scores
        kept = "".join(f" {scores[d] / whole[d]:.2%} |" for d in dimensions)
        ratio = rates[way] / rates["fp32"]
        print(f"| {way} | {rates[way]:.1f} | {ratio:.2f} | {load:.0f} s |{kept}", flush=True)
    print("NDCG@10 of fp32: " + ", ".join(f"{whole[d]:.4f} at {d}" for d in dimensions))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beir", type=Path, nargs="+", required=True, help="BEIR folders")
    parser.add_argument("--model", default=Settings().model, help="sentence-transformers model")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[w for w in WAYS if w != "bf16"])
    parser.add_argument("--documents", type=int, default=0, help="documents to keep; 0: all")
    parser.add_argument("--queries", type=int, default=0, help="queries to ask; 0: all")
    parser.add_argument("--timed", type=int, default=64, help="documents whose encoding is timed")
    arguments = parser.parse_args()
    card = model_card(Settings(model=arguments.model))
    print(f"{card.name}, {torch.get_num_threads()} threads, ", end="")
    print(torch.backends.cpu.get_cpu_capability())
    encoders = load_encoders(["fp32", *(way for way in arguments.ways if way != "fp32")], card)
    for folder in arguments.beir:
        part = slice_of(folder, arguments.documents, arguments.queries)
        compare(card, encoders, part, arguments.timed)


if __name__ == "__main__":
    main()
