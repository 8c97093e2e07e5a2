"""LoRA files: reading them and merging them into weights."""
