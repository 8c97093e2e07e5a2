"""Faces in pictures: found by a detector, and aligned by five points to a template."""
