"""Building a bundle: every engine, its parity, its files."""
