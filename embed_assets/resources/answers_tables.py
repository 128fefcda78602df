"""The tables of language models' answers, as SQLite and Postgres both take them."""

TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, prompt_version TEXT NOT NULL, reply TEXT NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, session TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS bills (
    session TEXT PRIMARY KEY, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (
    document_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (document_id, key)
);
"""
