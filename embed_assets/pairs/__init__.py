"""Questions become training pairs in splits that never move."""
