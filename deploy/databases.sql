-- Run by Postgres once, when its volume is new. The tables' database, lake, is POSTGRES_DB.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
