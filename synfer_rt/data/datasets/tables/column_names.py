"""What people call the columns of tables, and the keys of JSON objects.

Names are compared by their keys: lower case, letters and digits alone. `Image name`, `image_name`
and `imageName` have the same key.
"""

from __future__ import annotations

import re
from functools import lru_cache

AFFECTNET_COLUMN = "subdirectoryfilepath"
"""The image in AffectNet's CSV files. No other dataset calls it so."""
CAPTIONS = ("caption", "prompt", "text", "description", "captions", "txt")
"""A text about the image, the likeliest first."""
PIXELS = "pixels"
"""The grey values of an image, as in FER2013's CSV file."""
FILES = (
    "filename", AFFECTNET_COLUMN, "filepath", "imagepath", "imgpath", "path", "pth", "imagename",
    "imgname", "image", "img", "file", "imagefile", "imgfile", "imagefilename", "fname", "images",
    "picture", "photo", "relativepath", "relpath", "facepath", "filenames",
)  # fmt: skip
"""The file name of an image, the likeliest first."""
IDENTIFIERS = ("imageid", "imgid", "id", "name", "stem", "key")
"""The file name of an image, if such files are there."""
LABELS = (
    "label", "labels", "expression", "emotion", "class", "exp", "expressions", "emotions",
    "labelname", "emotionname", "expressionname", "classname", "labeltext", "emotionlabel",
    "expressionlabel", "classlabel", "facialexpression", "category", "target", "expr", "emo",
    "groundtruth", "gt", "annotation", "emotionclass", "expressionclass", "labelid", "classid",
    "emotionid", "expressionid", "categoryid", "classindex", "labelindex", "classidx", "y",
    "emotioncode", "expressioncode", "labelcode", "truelabel",
)  # fmt: skip
"""The label, the likeliest first."""
ABSTENTIONS = (
    "unknown", "nf", "none", "other", "others", "uncertain", "unsure", "notface", "noface",
)  # fmt: skip
"""Votes for no expression; FER+ has unknown and NF, not a face."""
SPLITS = (
    "split", "usage", "subset", "partition", "istrain", "istraining", "istrainingimage", "istest",
)  # fmt: skip
"""The split, whatever words the cells have."""
PERSONS = (
    "person", "personid", "subject", "subjectid", "identity", "identityid", "actor", "actorid",
    "participant", "participantid", "speaker", "speakerid", "individual",
)  # fmt: skip
"""Who an image shows."""
BOXES = ("bbox", "box", "facebox", "facebbox", "boundingbox", "faceboundingbox", "facerect")
"""A whole face box in one cell, which may end with a size or with a corner."""
IMAGES = (
    "image", "img", "images", "imagebytes", "imgbytes", "bytes", "picture", "photo", "face", "jpg",
    "jpeg", "png", "content", "data",
)  # fmt: skip
"""The bytes of an image file in a Parquet file, the likeliest first."""


@lru_cache(maxsize=4096)
def key(name: str) -> str:
    """The key of a name."""
    return re.sub(r"[\W_]+", "", name.lower())
