"""What is known of the photos that a run starts from: their labels, captions and action units."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PHOTO, READER, PROTOTYPE = "photo", "reader", "prototype"
AUS_FROM: Mapping[str, str] = {
    PHOTO: "the columns of action units in the photos' table",
    READER: "the bundle's AU reader, which looks at the photo",
    PROTOTYPE: "the prototypes of the label",
}
"""Where the action units of a request come from."""
REQUEST, PLAN = "request", "plan"
"""The source of a label that takes turns with others and of action units that were given, and of
those that a plan's ranges or tables say."""


@dataclass(frozen=True)
class PhotoFacts:
    """What a run takes from the photos of a dataset, photo by photo.

    `labels` are the photos' own, of which each is requested once in a round; empty if other labels
    take turns. `captions` are prompts, None for a photo without one, and empty if prompts come from
    elsewhere. `aus_from` is a key of AUS_FROM. `aus` are the intensities that the photos' table
    says, by the model's names; empty unless `aus_from` is "photo".
    """

    labels: Sequence[str] = ()
    captions: Sequence[str | None] = ()
    aus: Sequence[Mapping[str, float]] = ()
    aus_from: str = PROTOTYPE

    @property
    def read_aus(self) -> bool:
        """Whether a network reads the action units from the photos."""
        return self.aus_from == READER

    @property
    def keeps_labels(self) -> bool:
        """Whether the photos' own labels are requested."""
        return bool(self.labels)

    def shown(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Those of the classes that the photos' own labels name, in their order."""
        labels = {*self.labels}
        return tuple(name for name in classes if name in labels)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the requests, as JSON values, besides what the photos say."""
        return {"keep_label": self.keeps_labels, "aus_from": self.aus_from}

    def digest(self, names: Sequence[str], photos: str) -> str:
        """A SHA-256 of all that the photos say, and of `photos`, the one of their files."""
        aus = [dict(each) for each in self.aus]
        said = [photos, list(names), list(self.labels), list(self.captions), aus]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()
