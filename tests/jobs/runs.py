"""Runs of a tiny model, and what they wrote."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from synfer_rt.data.writers import open_output, read


def output(run, out, resume=False, format="imagefolder", **options):
    return open_output(out, run.settings(format), resume=resume, **options)


def images(out):
    return [np.asarray(Image.open(io.BytesIO(png)), np.int16) for _, png in read(out)]


def records(out):
    return [record for record, _ in read(out)]


def stop_after(images):
    def interrupt(made):
        if made > images:
            raise KeyboardInterrupt

    return interrupt
