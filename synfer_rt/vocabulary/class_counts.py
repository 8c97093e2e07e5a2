"""How many images of each class published training sets have, to make a set with the same shares.

- AffectNet: Mollahosseini et al., arXiv 1708.03985, table 3, counts the images of each class; 500
  of each are the published validation set, the rest are these. `affectnet-7` has no contempt.
- RAF-DB: Li et al., "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
  Recognition in the Wild" (CVPR 2017): the lines of its label list that begin with `train_`.
"""

from __future__ import annotations

from collections.abc import Mapping

_AFFECTNET = {
    "neutral": 74_874,
    "happy": 134_415,
    "sad": 25_459,
    "surprise": 14_090,
    "fear": 6_378,
    "disgust": 3_803,
    "anger": 24_882,
    "contempt": 3_750,
}

CLASS_COUNTS: Mapping[str, Mapping[str, int]] = {
    "affectnet-8": _AFFECTNET,
    "affectnet-7": {name: count for name, count in _AFFECTNET.items() if name != "contempt"},
    "raf-db": {
        "surprise": 1_290,
        "fear": 281,
        "disgust": 717,
        "happy": 4_772,
        "sad": 1_982,
        "anger": 705,
        "neutral": 2_524,
    },
}
"""The images of each class by the name of the set, whose classes are those of its label scheme."""
