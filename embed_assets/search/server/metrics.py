"""What the server counts, for Prometheus."""

from embed_assets.search.server.served import Served

OWN = "embed_assets"
"""What the names of all metrics begin with."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histograms' buckets."""


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own = {"namespace": OWN, "registry": self._registry}
        self._requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self._seconds = Histogram(
            "request_seconds", "Seconds until the answer.", ["route"], buckets=SECONDS, **own
        )
        self._waiting = Gauge("waiting_texts", "Texts that wait in the queue.", **own)
        self._batches = Histogram("batch_texts", "Texts of each batch.", buckets=TEXTS, **own)
        self._texts = Counter("texts", "Texts embedded on request.", ["task"], **own)
        self._tokens = Counter("tokens", "Tokens read on request.", ["task"], **own)
        self._searches = Counter("searches", "Searches answered.", ["mode"], **own)
        self._model = Gauge("model_info", "The model that answers.", ["name", "identity"], **own)
        self._chunks = Gauge("chunks", "Chunks in the index.", **own)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request. route: its pattern, of which there are few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, texts: int) -> None:
        """Count a batch."""
        self._batches.observe(texts)

    def embedded(self, task: str, texts: int, tokens: int) -> None:
        """Count what was embedded for a request."""
        self._texts.labels(task).inc(texts)
        self._tokens.labels(task).inc(tokens)

    def searched(self, mode: str) -> None:
        """Count a search."""
        self._searches.labels(mode).inc()

    def shown(self, served: Served, waiting: int) -> tuple[bytes, str]:
        """All of it, as Prometheus reads it, and the type of that."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        self._waiting.set(waiting)
        self._chunks.set(served.chunks)
        self._model.clear()
        self._model.labels(served.name, served.identity).set(1)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
