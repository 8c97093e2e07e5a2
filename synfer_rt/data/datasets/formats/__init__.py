"""Dataset formats, one module each.

To add a format:

1. Write a module here with `read(contents)`, which yields an Item for each image (`contents.item`)
   and a Skipped for each file that is not used (`contents.skipped`); with a test that recognises
   the format; and with `FORMAT = Format("my-format", read, certain=has_its_file)`. See `Format` for
   the kinds of tests, and `ck_plus` for a short example.
2. Add its FORMAT to `registry.FORMATS`, before formats whose tests pass for the same files.
3. Test it with a small dataset in `tests/data/datasets/formats/`.
4. Add a row to the table of formats in `docs/labelling.md`.

`--format my-format` and `read_dataset(path, format="my-format")` then read it.
"""
