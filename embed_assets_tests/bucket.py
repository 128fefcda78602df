"""A real S3 server for tests, from a package, on this machine alone."""

import socket
import uuid
from collections.abc import Iterator

import pytest
import s3fs

from embed_assets.resources.ducklake import _bucket_access


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, which this process and its children reach by the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        region = {"LocationConstraint": "eu-west-1"}
        name = f"lake-{uuid.uuid4().hex[:8]}"  # what the server holds outlives it in this process
        boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=region)
        for remembers in (s3fs.S3FileSystem.clear_instance_cache, _bucket_access.cache_clear):
            remembers()
        yield f"s3://{name}"
    finally:
        server.stop()
