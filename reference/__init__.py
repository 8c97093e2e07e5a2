"""How the default model is made: faces, training, evaluation. Not installed."""
