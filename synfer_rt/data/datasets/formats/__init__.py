"""One module a format: how it is recognised and read. `registry.FORMATS` lists them."""
