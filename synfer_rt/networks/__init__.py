"""Other people's ONNX networks of images, as files: described, read, told apart, and run."""
