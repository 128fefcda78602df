"""The command line: `embed-assets`."""
