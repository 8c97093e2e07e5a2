"""What papers report of generated images, as pure functions on arrays.

Features are rows of float [n, d], one an image; which network they come from is the caller's.
"""
