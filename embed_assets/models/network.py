"""A model's network in the form of another runtime, for serving on CPUs.

The network alone is exported: tokens in, an embedding of each token out. Tokenizer, prompts,
pooling and normalisation stay the model's own. Files lie where the backends of
sentence-transformers, text-embeddings-inference and their like look for them. Hugging Face's
optimum, which exports for these, doesn't install beside the transformers of this project: torch and
OpenVINO do it themselves.
"""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.models.card import starts_with_transformer
from embed_assets.models.files import foreign_code, route

if TYPE_CHECKING:
    import numpy as np

Format = Literal["onnx", "openvino"]
FILES: Mapping[Format, str] = {
    "onnx": "onnx/model.onnx",
    "openvino": "openvino/openvino_model.xml",
}
"""Where a network lies in the folder of its module."""
RUNTIMES: Mapping[Format, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
PACKAGES: Mapping[Format, Sequence[str]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
ABOUT = "--format"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a network may read, int64 (texts, tokens): those that its tokenizer gives."""
OUTPUT = "last_hidden_state"
"""What it gives, as transformers calls it: float32 (texts, tokens, size)."""
EXAMPLES = ("A valve.", "When does the valve of the pump open, and who is told of it?")
"""What a network is traced with: two texts of different lengths, so that one is padded."""
WHOLE_FILE_BYTES = 1_900_000_000
"""A larger ONNX network keeps its weights in a file beside it: protobuf ends at 2 GiB."""

Run = Callable[[Mapping[str, "np.ndarray"]], "np.ndarray"]
"""A network at work: its inputs by their names, to its output."""


def check_exportable(source: str, form: Format) -> None:
    """SettingsError where a package is missing, or a model's files say that none can be made."""
    try:
        for package in PACKAGES[form]:
            imported(package)
    except ImportError as error:
        raise SettingsError(
            f"{form} needs {', '.join(PACKAGES[form])}: pip install 'embed_assets[{form}]' "
            f"({one_line(str(error))}).",
            ABOUT,
        ) from error
    first, of_queries = route(source, "document")[0], route(source, "query")[0]
    if code := foreign_code(source):
        raise _refused(f"it runs code that comes with it ({', '.join(code)})")
    if not starts_with_transformer(source):
        raise _refused(f"it begins with {first.kind}, which is no transformer")
    if first != of_queries:
        raise _refused("its queries and its documents pass through different transformers")


def export_network(model: Any, form: Format, folder: Path) -> Path:
    """Write the network of a model on the CPU, in fp32, for any batch and length; gives its file.

    folder: of the model's first module. SettingsError where the network is none that can be
    exported; ProjectError where the exporter fails.
    """
    import torch

    transformer = _transformer(model)
    names = network_inputs(transformer)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformer.auto_model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(names, tensors, strict=True)), return_dict=True)[OUTPUT]

    features = transformer.preprocess(list(EXAMPLES))
    example = tuple(features[name] for name in names)
    file = folder / FILES[form]
    file.parent.mkdir(parents=True)
    write = {"onnx": _write_onnx, "openvino": _write_openvino}[form]
    try:
        with torch.no_grad(), quiet("torch.onnx", "transformers"):
            write(Network().eval(), example, names, file)
    except Exception as error:  # of whatever the exporter is made of
        said = f"{type(error).__name__}: {one_line(str(error))}"
        raise ProjectError(f"the network can't be exported: {said}", ABOUT) from error
    return file


def network_inputs(transformer: Any) -> list[str]:
    """Names of what a Transformer's network reads, in their order."""
    given = transformer.preprocess(list(EXAMPLES))
    read = inspect.signature(transformer.auto_model.forward).parameters
    return [name for name in INPUTS if name in given and name in read]


def run_by(model: Any, form: Format, file: Path) -> None:
    """Have a model's network run by another runtime on the CPU, from an exported file.

    On as many threads as torch has. Several threads may encode at a time, as before.
    """
    import torch

    transformer = _transformer(model)
    names = network_inputs(transformer)
    run = {"onnx": _onnx_session, "openvino": _openvino_session}[form](file)

    def forward(features: dict[str, Any], **_: Any) -> dict[str, Any]:
        hidden = run({name: features[name].numpy() for name in names})
        return {**features, transformer.module_output_name: torch.from_numpy(hidden)}

    transformer.forward = forward


def _transformer(model: Any) -> Any:
    """The Transformer of a model. SettingsError where its network is none that can be exported."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    found = next(part for part in model.modules() if isinstance(part, Transformer))
    reads_text = {"method": "forward", "method_output_name": OUTPUT}
    if found.modality_config.get("text") != reads_text or found.config.output_hidden_states:
        raise _refused("what follows its transformer reads more of it than the last layer")
    if any(getattr(part, "is_causal", False) for part in found.auto_model.modules()):
        raise _refused("it is a decoder, whose tokens see only those before them")
    return found


def _refused(why: str) -> SettingsError:
    return SettingsError(f"This model can't be exported: {why}. Publish it without.", ABOUT)


def _write_onnx(network: Any, example: Sequence[Any], names: Sequence[str], file: Path) -> None:
    import onnx_ir
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        network,
        tuple(example),
        input_names=names,
        output_names=[OUTPUT],
        dynamo=True,
        dynamic_shapes=(tuple({0: "batch", 1: "sequence"} for _ in names),),
        verbose=False,
    )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # It quotes code, and paths of this machine.
    size = sum(weight.nbytes for weight in network.parameters())
    beside = f"{file.name}_data" if size > WHOLE_FILE_BYTES else None
    onnx_ir.save(program.model, file, external_data=beside)


def _write_openvino(network: Any, example: Sequence[Any], names: Sequence[str], file: Path) -> None:
    openvino = imported("openvino")
    before = network.model.config._attn_implementation
    # Converted, the usual one gives NaN where a window of ModernBERT holds padding alone.
    network.model.set_attn_implementation("eager")
    try:
        model = openvino.convert_model(network, example_input=tuple(example))
    finally:
        network.model.set_attn_implementation(before)
    for port, name in (*zip(model.inputs, names, strict=True), (model.outputs[0], OUTPUT)):
        port.get_tensor().set_names({name})
    openvino.save_model(model, file, compress_to_fp16=False)


def _onnx_session(file: Path) -> Run:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUT], inputs)[0]


def _openvino_session(file: Path) -> Run:
    import torch

    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = imported("openvino").Core().compile_model(file, "CPU", threads)
    return lambda inputs: compiled.create_infer_request().infer(inputs)[0]


def imported(package: str) -> Any:
    """A package that may be missing. OpenVINO without its telemetry, which asks nobody."""
    if package == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    return import_module(package)


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Leave out what libraries say of work that is checked here: warnings, in these logs too."""
    logs = [logging.getLogger(name) for name in loggers]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
