"""The clients that people have work unchanged: OpenAI's own, LangChain's and LlamaIndex's."""

import numpy as np
import openai
import pytest
from pydantic import SecretStr

from embed_assets.search.server.access import Access
from embed_assets.search.server.limits import Limits
from embed_assets_tests.search.server.conftest import Start
from embed_assets_tests.search.server.made_up import Following, vector

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def keyed(start: Start) -> tuple[str, Following]:
    url, follower = start(Limits(inputs=100), Access(KEY))
    return f"{url}/v1", follower


@pytest.fixture
def client(keyed: tuple[str, Following]) -> openai.OpenAI:
    return openai.OpenAI(base_url=keyed[0], api_key=KEY, max_retries=0)


def test_openais_client_gets_vectors_at_each_dimension(client):
    for dimensions in (8, 4, 2):
        made = client.embeddings.create(input=["a", "b"], model="v1-query", dimensions=dimensions)

        assert made.model == "v1"
        assert made.usage.prompt_tokens == 2
        for row, text in zip(made.data, "ab", strict=True):
            first = vector(text, "query", "v1")[:dimensions]
            assert np.allclose(row.embedding, first / np.linalg.norm(first), atol=1e-6)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openais_client_gets_the_encoding_that_it_asks_for(client, encoding):
    made = client.embeddings.create(
        input="a", model="champion", encoding_format=encoding, extra_body={"input_type": "query"}
    )

    [row] = made.data
    assert isinstance(row.embedding, str) == (encoding == "base64")
    if encoding == "float":
        assert np.allclose(row.embedding, vector("a", "query", "v1"), atol=1e-6)


def test_openais_client_lists_the_models(client):
    assert "v1-document" in [model.id for model in client.models.list()]
    assert client.models.retrieve("champion").id == "champion"


def test_openais_client_raises_its_own_errors(client, keyed):
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(input="a", model="v9")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(input=[1, 2, 3], model="v1")
    with pytest.raises(openai.AuthenticationError) as locked:
        openai.OpenAI(base_url=keyed[0], api_key="another").models.list()

    assert missing.value.code == "model_not_found"
    assert wrong.value.param == "input"
    assert locked.value.code == "invalid_api_key"


def test_langchain_embeds_queries_as_queries_and_documents_as_documents(keyed):
    from langchain_openai import OpenAIEmbeddings

    def embeddings(model: str) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(
            base_url=keyed[0], api_key=SecretStr(KEY), model=model, check_embedding_ctx_length=False
        )

    texts = [f"text {n}" for n in range(5)]
    documents = embeddings("champion-document").embed_documents(texts)
    query = embeddings("champion-query").embed_query("text 1")

    expected = [vector(text, "document", "v1") for text in texts]
    assert np.allclose(documents, expected, atol=1e-6)
    assert np.allclose(query, vector("text 1", "query", "v1"), atol=1e-6)


def test_llamaindex_embeds_queries_and_documents(keyed):
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    def embeddings(model: str) -> OpenAILikeEmbedding:
        return OpenAILikeEmbedding(
            model_name=model, api_base=keyed[0], api_key=KEY, embed_batch_size=2, dimensions=4
        )

    texts = [f"text {n}" for n in range(5)]
    documents = embeddings("v1-document").get_text_embedding_batch(texts)
    query = embeddings("v1-query").get_query_embedding("text 1")

    first = np.stack([vector(text, "document", "v1")[:4] for text in texts])
    assert np.allclose(documents, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)
    assert len(query) == 4
    assert not np.allclose(query, documents[1], atol=1e-3)
