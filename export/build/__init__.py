"""Building a bundle: its engines, their verification, its files."""
