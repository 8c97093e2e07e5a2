"""Object stores: addresses, and the objects under them, by fsspec.

Nothing here is imported from a store's library until an address is opened.
"""
