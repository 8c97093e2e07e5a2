"""Readers of a checkpoint's files: JSON, tensors, model folders, AU adapters, LoRAs."""
