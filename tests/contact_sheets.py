"""The picture in the page of a contact sheet."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path


def picture_of(page: Path) -> io.BytesIO:
    """The PNG file that the page shows."""
    (data,) = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.read_text("utf-8"))
    return io.BytesIO(base64.b64decode(data))
