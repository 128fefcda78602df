"""A DuckLake beside the warehouse in a file."""

from embed_assets_tests.bucket import bucket
from embed_assets_tests.postgres import database, lake, postgres

__all__ = ["bucket", "database", "lake", "postgres"]
