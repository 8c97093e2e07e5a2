"""Reading checkpoints: weights, settings, adapters, LoRAs."""
