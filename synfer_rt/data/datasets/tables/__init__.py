"""Tables that name images: how files are written, what columns mean, which image a row names."""
