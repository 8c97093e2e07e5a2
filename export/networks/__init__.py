"""The networks that become engines, as PyTorch modules or ONNX graphs."""
