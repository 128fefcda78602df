"""Formats of a network: how fast PyTorch, ONNX Runtime and OpenVINO run the same model on this CPU.

One query at a time, and passages of this project's documentation. `pytorch`, `onnx` and `openvino`
are encoded by sentence-transformers in batches of 32, on as many threads as torch takes. `project`
is PyTorch by this project's own encoder, as `serve` has it: a query on one thread, and a batch to
each core. All take turns, in rounds; figures are medians. Trust the ratios to the first, not the
rates. `export` is what writing the network takes, `load` what its runtime takes until it can run.

    python benchmarks/formats.py [--model all-MiniLM-L6-v2] [--passages 128]
        [--formats pytorch project onnx openvino]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from embed_assets.machine import this_machine
from embed_assets.models.card import model_source
from embed_assets.models.encoder import encode, load_model
from embed_assets.models.network import Format, export_network, run_by

ROUNDS = 3
NETWORKS: tuple[Format, ...] = ("onnx", "openvino")
PROJECT = "project"
FORMATS = ("pytorch", PROJECT, *NETWORKS)
DOCS = Path(__file__).parents[1] / "docs"
FEWEST_WORDS = 40
QUERIES = (
    "how is a version published?",
    "which questions decide whether a model is better?",
    "what happens to a PDF that was deleted",
    "how much memory does a training need",
)


def passages(count: int) -> list[str]:
    """Paragraphs of the documentation."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(DOCS.glob("*.md")))
    paragraphs = (part for text in texts for part in text.split("\n\n"))
    return [part for part in paragraphs if len(part.split()) >= FEWEST_WORDS][:count]


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def encoder_in(form: str, source: str, folder: Path) -> Callable[[list[str]], Any]:
    model = load_model(source)
    if form == PROJECT:
        return lambda texts: encode(model, texts, "document", "", "fp32")
    if form in NETWORKS:
        files: list[Path] = []
        export = seconds(lambda: files.append(export_network(model, form, folder)))
        load = seconds(lambda: run_by(model, form, files[0]))
        print(f"{form}: export {export:.1f} s, load {load:.1f} s", flush=True)
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--passages", type=int, default=128)
    given = parser.parse_args()
    texts = passages(given.passages)
    rates: dict[str, list[float]] = {form: [] for form in given.formats}
    latencies: dict[str, list[float]] = {form: [] for form in given.formats}
    with tempfile.TemporaryDirectory() as temporary:
        source = model_source(given.model)
        encoders = {form: encoder_in(form, source, Path(temporary)) for form in given.formats}
        for encoder in encoders.values():
            encoder(texts[:8])
        for _ in range(ROUNDS):
            for form, encoder in encoders.items():
                latencies[form] += [seconds(partial(encoder, [q])) for q in QUERIES * 10]
                rates[form].append(len(texts) / seconds(partial(encoder, texts)))
    first = given.formats[0]
    print(f"{this_machine()}; {len(texts)} passages, {ROUNDS} rounds")
    print("| format | a query, ms | times as fast | passages/s | times as fast |")
    print("| --- | ---: | ---: | ---: | ---: |")
    latency = {form: 1000 * statistics.median(taken) for form, taken in latencies.items()}
    rate = {form: statistics.median(found) for form, found in rates.items()}
    for form in given.formats:
        print(
            f"| {form} | {latency[form]:.1f} | {latency[first] / latency[form]:.2f} "
            f"| {rate[form]:.1f} | {rate[form] / rate[first]:.2f} |"
        )


if __name__ == "__main__":
    main()
