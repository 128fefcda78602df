"""What a model, or a file, is called where others read it."""

import pytest

from embed_assets.models.names import told_name


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("team/base", "team/base"),
        ("openai:a-model", "openai:a-model"),
        ("/home/me/base", "base"),
        ("~/models/base", "base"),
        ("../base", "base"),
        ("a.jsonl:/home/me/b.jsonl", "a.jsonl:b.jsonl"),
        ("bm25, /home/me/base,v3", "bm25, base,v3"),
        ("https://example.org/a:~/b.jsonl", "https://example.org/a:b.jsonl"),
        ("query: ", "query: "),
    ],
)
def test_a_path_of_this_machine_is_told_by_its_last_part(named, told):
    assert told_name(named) == told
