"""Questions taken from the chunks themselves."""
