"""Requests, responses and errors in the form of OpenAI's API.

The form is described at platform.openai.com/docs/api-reference/embeddings. What ours adds is
optional: `input_type` and `truncate` of a request for embeddings.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt
from pydantic_core import PydanticCustomError, to_json

from embed_assets.search.server.served import CHAMPION, Served, Task

if TYPE_CHECKING:
    import numpy as np

JSON = "application/json"
OWNER = "embed_assets"
_TYPES = {401: "authentication_error", 403: "permission_error"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


class ApiError(Exception):
    """What a client is told, with the status of HTTP."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param`: the field of the request that it is about. code: for programs."""
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code, self.headers = code or _CODES.get(status), dict(headers or {})

    @property
    def body(self) -> bytes:
        """OpenAI's error, JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        said = {"message": self.message, "type": _TYPES.get(self.status, kind)}
        return to_json({"error": {**said, "param": self.param, "code": self.code}})


def first_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's errors, for a client: 400. Nothing that was sent is repeated."""
    first = errors[0]
    if first["type"] == "json_invalid":
        where = f"position {first['loc'][-1]}"
        return ApiError(400, f"The body is no JSON: {first['ctx']['error']} ({where}).")
    loc = [str(part) for part in first["loc"] if part != "body"]
    if not loc:
        said = "The body must be a JSON object, sent with Content-Type: application/json."
        return ApiError(400, said)
    name = ".".join(loc)
    return ApiError(400, f"{name}: {first['msg']}.", name)


def text_of(value: Any) -> str:
    """A text that can be encoded. PydanticCustomError where it is none."""
    if not isinstance(value, str):
        raise PydanticCustomError("text", "a text is expected")
    if not value:
        raise PydanticCustomError("text", "the text is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "half of a surrogate pair is no character") from None
    return value


def _texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [text_of(value)]
    if not isinstance(value, list) or not value:
        raise PydanticCustomError("texts", "a text or a list of texts is expected, one at least")
    if any(isinstance(item, (int, list)) for item in value):
        raise PydanticCustomError(
            "tokens",
            "tokens are not accepted, since they are another model's: send texts "
            "(with langchain-openai: check_embedding_ctx_length=False)",
        )
    return [text_of(item) for item in value]


Text = Annotated[str, BeforeValidator(text_of)]
Texts = Annotated[list[str], BeforeValidator(_texts_of, json_schema_input_type=str | list[str])]


class EmbeddingsRequest(BaseModel):
    """`POST /v1/embeddings`. Fields that are not known are ignored, `user` among them."""

    model_config = ConfigDict(extra="ignore")

    input: Texts
    model: Text
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = None
    input_type: Literal["query", "document", "passage"] | None = None
    """`passage` is `document`. Without: what the model's suffix says, else document."""
    truncate: StrictBool = True
    """Whether a text that is longer than the model reads is cut; else it is refused."""


class Model(BaseModel):
    """One of `GET /v1/models`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = OWNER
    identity: str
    dimensions: list[int]
    max_tokens: int = Field(description="Tokens that it reads of a text")


def asked_model(served: Served, name: str) -> Task | None:
    """The task that a model's name asks for by its suffix, if it does. ApiError: no such model."""
    for own in (served.name, CHAMPION):
        if name == own:
            return None
    for own in (served.name, CHAMPION):
        for task in ("query", "document"):
            if name == f"{own}-{task}":
                return task
    raise ApiError(
        404,
        f"The model does not exist here. There is `{CHAMPION}`, which is {served.name} now, "
        "and either with -query or -document behind it.",
        "model",
        "model_not_found",
    )


def models(served: Served, created: int) -> list[Model]:
    """All names that `asked_model` takes."""
    own = dict.fromkeys((CHAMPION, served.name))
    return [
        Model(
            id=f"{name}{suffix}",
            created=created,
            identity=served.identity,
            dimensions=list(served.dimensions),
            max_tokens=served.token_limit,
        )
        for name in own
        for suffix in ("", "-query", "-document")
    ]


def task_of(request: EmbeddingsRequest, by_suffix: Task | None) -> Task:
    """What the texts are: by `input_type` or the model's suffix, else documents."""
    given = "document" if request.input_type == "passage" else request.input_type
    if given and by_suffix and given != by_suffix:
        raise ApiError(
            400, f"input_type: {given}, where the model's suffix says {by_suffix}.", "input_type"
        )
    return given or by_suffix or "document"


def dimensions_of(request: EmbeddingsRequest, served: Served) -> int:
    """How many numbers of each vector are asked for. ApiError where it wasn't trained for that."""
    if request.dimensions is None:
        return served.dimensions[0]
    if request.dimensions not in served.dimensions:
        known = ", ".join(str(dimension) for dimension in served.dimensions)
        raise ApiError(
            400, f"dimensions: {request.dimensions}. {served.name} has {known}.", "dimensions"
        )
    return request.dimensions


def shortened(vectors: "np.ndarray", dimensions: int) -> "np.ndarray":
    """The first numbers of each vector, normalised again. vectors: float32 (texts, size)."""
    import numpy as np

    if dimensions == vectors.shape[1]:
        return vectors
    first = vectors[:, :dimensions]
    norms = np.linalg.norm(first, axis=1, keepdims=True)
    return first / np.maximum(norms, np.finfo(np.float32).tiny)


def embeddings_body(
    vectors: "np.ndarray",
    encoding: Literal["float", "base64"],
    model: str,
    usage: Mapping[str, int],
) -> bytes:
    """The response to a request for embeddings, JSON. base64: of little-endian float32."""
    rows = vectors.astype("<f4", copy=False)
    shown = (
        (base64.b64encode(row.tobytes()).decode() for row in rows)
        if encoding == "base64"
        else rows.tolist()
    )
    data = [
        {"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(shown)
    ]
    return to_json({"object": "list", "data": data, "model": model, "usage": dict(usage)})
