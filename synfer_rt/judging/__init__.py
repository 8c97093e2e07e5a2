"""What the annotators say of an image, and which images are accepted."""
