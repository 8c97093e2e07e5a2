"""The engines of a checkpoint as PyTorch modules, ready to be exported."""
