"""ONNX graphs: exporting them from PyTorch, reading and rewriting them."""
