"""Core-sets: few rows of features that stand for many, as pure functions on arrays.

Features are rows of float32 [n, d], one an image of one class; they may lie in a mapped file, which
is read in blocks. A choice is an order of rows: its first k are the choice of k. So each choice is
the beginning of every larger one.
"""
