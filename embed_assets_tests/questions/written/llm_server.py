"""A server on loopback that speaks the chat API over HTTP, and misbehaves as it is told.

Its replies ask about words of the passage it was sent, so that they belong to their chunk.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

INPUT_TOKENS, OUTPUT_TOKENS = 100, 20  # of every call


@dataclass(frozen=True)
class Response:
    """What goes over the wire. cut: bytes of the body that are sent before the line goes dead."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None


@dataclass(frozen=True)
class Request:
    """One call as the server saw it. times: which call about its passage it is, from 1."""

    body: Mapping[str, Any]
    passage: str
    times: int
    headers: Mapping[str, str]
    at: float


def completion(content: str | None, finish_reason: str = "stop", **fields: Any) -> Response:
    """A reply of the API with this content."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
        **fields,
    }
    return Response(body=json.dumps(body))


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error of the API."""
    return Response(status, json.dumps({"error": {"message": message}}), headers or {})


def questions(*entries: Mapping[str, Any] | str) -> str:
    """The content of a good reply. An entry is a question, or some of its fields."""
    common = {"kind": "question", "answer": "an answer", "answerable": True}
    rows = [{**common, **({"question": e} if isinstance(e, str) else e)} for e in entries]
    return json.dumps({"questions": rows}, ensure_ascii=False)


def good_reply(request: Request) -> Response:
    """Two questions about the passage."""
    # Backwards, since a quotation makes no good question.
    words = " ".join(request.passage.split()[5::-1])
    return completion(
        questions(f"What is known of {words}?", {"kind": "keywords", "question": f"{words} facts"})
    )


class LLMServer:
    """`reply` decides on each call; `requests` are those that came, in order."""

    def __init__(self, reply: Callable[[Request], Response] = good_reply) -> None:
        self.reply = reply
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 128})
        self._server = server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def times(self, passage: str) -> int:
        """How often a passage was asked about."""
        return self._times[passage]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def passage(self, body: Mapping[str, Any]) -> str:
        """What a call is about."""
        return json.loads(body["messages"][1]["content"])["passage"]

    def answer(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        passage = self.passage(body)
        with self._lock:
            self._times[passage] += 1
            request = Request(body, passage, self._times[passage], headers, time.monotonic())
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            response = self.reply(request)
            time.sleep(response.delay)
            return response
        finally:
            with self._lock:
                self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    owner: LLMServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        response = self.owner.answer(body, headers)
        payload = response.body.encode()
        try:
            self.send_response(response.status)
            headers = {"Content-Type": "application/json", **response.headers}
            for name, value in {**headers, "Content-Length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload if response.cut is None else payload[: response.cut])
        except (BrokenPipeError, ConnectionResetError):
            return  # the client gave up waiting
        if response.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
