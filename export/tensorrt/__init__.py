"""Compiling ONNX files to plans for NVIDIA GPUs."""
