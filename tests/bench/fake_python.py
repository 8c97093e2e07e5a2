"""An interpreter of a peer's environment without the peer: it answers as serve.py does."""

from __future__ import annotations

import sys
from pathlib import Path

SERVER = """#!{python}
import json, os, sys
import numpy as np
from PIL import Image

asked_before = []
for line in sys.stdin:
    asked = json.loads(line)
    given = asked["with"]
    if asked["do"] == "load":
        {load}
        value = {{"ran": {{"runtime": "fake 1", "precision": "float32", "device": "cpu"}},
                 "notes": [], "alike": {alike}, "bundle": "{bundle}"}}
    elif "prompts" in given:
        noise = np.load(given["start"])
        for i, one in enumerate(noise):
            pixels = np.full((64, 64, 3), i, np.uint8)
            Image.fromarray(pixels).save(os.path.join(given["out"], f"{{i:08d}}.png"))
        value = {{"condition": 1.0, "denoise": float(len(given["prompts"])), "decode": 3.0}}
    else:
        value = {{"total": given["count"] / 8, "stages": {{}}}}
    print(json.dumps({{"is": value, "peak_rss_bytes": 1234}}), flush=True)
"""


def fake_python(
    file: Path, *, load: str = "pass", alike: int | None = None, bundle: str = ""
) -> str:
    """Write the interpreter into `file`; `load` is what it does when the system loads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = SERVER.format(python=sys.executable, load=load, alike=alike, bundle=bundle)
    file.write_text(text)
    file.chmod(0o755)
    return str(file)
