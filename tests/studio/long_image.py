"""An image that takes long, and a studio that a signal ends while it makes one.

    python -m tests.studio.long_image STAGE

prints as JSON the status of the answer, whether the image was broken off, and whether files stay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from synfer_rt.studio.making import Made, OutOfDate
from synfer_rt.studio.server import Studio, open_studio


class LongImage:
    """Takes the place of `Maker.make`: an image of five seconds, in stages of `stage` seconds."""

    def __init__(self, stage: float = 0.01) -> None:
        self._stage = stage
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, settings: object, out_of_date: Callable[[], bool] = lambda: False) -> Made:
        self.begun.set()
        for _ in range(int(5 / self._stage)):
            if out_of_date():
                self.ended.set()
                raise OutOfDate
            time.sleep(self._stage)
        raise AssertionError("nobody said so")


def _status(studio: Studio) -> int:
    """That of an image which is asked for."""
    connection = HTTPConnection(urlsplit(studio.address).netloc, timeout=20)
    connection.request("POST", "/image", json.dumps({"label": "happy"}))
    return connection.getresponse().status


def main(stage: float) -> None:
    """End a studio by SIGTERM while it makes an image."""
    image, statuses = LongImage(stage), list[int]()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def end() -> None:
        if image.begun.wait(20):
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, interrupt)
    interrupted = False
    with open_studio(backend="onnxruntime-cpu", threads=1, port=0) as studio:
        studio._maker.make = image
        folder = Path(studio._photos._folder.name)
        asking = threading.Thread(target=lambda: statuses.append(_status(studio)))
        ending = threading.Thread(target=end)
        asking.start()
        ending.start()
        try:
            studio.run()
        except KeyboardInterrupt:
            interrupted = True
    asking.join()
    found = {"statuses": statuses, "interrupted": interrupted}
    print(json.dumps(found | {"ended": image.ended.is_set(), "stays": folder.exists()}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
