"""What a bundle is judged by, one measure a module; `reference.evaluate` is the command."""
