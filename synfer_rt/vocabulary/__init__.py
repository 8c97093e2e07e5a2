"""The words that requests, labels and datasets are written in: action units, classes, prompts."""
