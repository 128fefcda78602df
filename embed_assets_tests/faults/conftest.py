"""A project that the command ingests, as the tests of the command have it."""

from embed_assets_tests.command.conftest import project, small_model

__all__ = ["project", "small_model"]
