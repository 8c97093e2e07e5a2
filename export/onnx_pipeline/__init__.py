"""Stable Diffusion as a folder of ONNX graphs, as optimum's pipelines read it."""
