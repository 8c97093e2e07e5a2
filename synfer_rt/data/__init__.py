"""Images and datasets, read and written."""
