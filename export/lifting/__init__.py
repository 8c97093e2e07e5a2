"""ONNX graphs as PyTorch modules, so that autograd can differentiate them."""
