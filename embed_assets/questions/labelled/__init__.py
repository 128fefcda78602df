"""Questions that people wrote: read from their files, matched to the chunks that answer them."""
