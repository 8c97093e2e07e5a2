"""What a dataset says of its images: classes in words, numbers and folder names, and splits."""
