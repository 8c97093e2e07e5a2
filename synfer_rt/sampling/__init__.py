"""From requests to labelled images."""
