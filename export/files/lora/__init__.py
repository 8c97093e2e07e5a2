"""Reading LoRA files and merging them into weights."""
