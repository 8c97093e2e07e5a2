"""The commands, a module each, and what they share: options, progress, files left out."""
