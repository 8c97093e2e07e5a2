"""Writing ONNX graphs and rewriting them."""
