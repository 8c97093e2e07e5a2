"""Dataset formats, one module each: `read` lists the images, tests recognise the format.

`format.Format` puts them together, and `registry.FORMATS` lists all formats. docs/extending.md
shows how to add one.
"""
