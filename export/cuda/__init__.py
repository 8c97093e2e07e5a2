"""Engines rewritten for CUDA: fused operators, float16, and nothing on the host."""
