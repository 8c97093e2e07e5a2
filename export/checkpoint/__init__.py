"""A whole checkpoint: its kind, its settings and what it holds, found consistent."""
