"""Answers requests, a line of JSON each, by the functions of a module of this folder.

    python serve.py MODULE

Requests are {"do": NAME, "with": {…}}. `load` calls the module's `load`, whose result is kept; any
other name is a method of that result. The answer is {"is": VALUE, "peak_rss_bytes": N}, or
{"problem": TEXT} for an exception. What libraries print goes to the standard error output.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO


def serve(module: Any, requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests."""
    system: Any = None
    for line in requests:
        asked = json.loads(line)
        try:
            if asked["do"] == "load":
                system = module.load(**asked["with"])
                value = {name: getattr(system, name) for name in ("ran", "notes", *module.TELLS)}
            else:
                value = getattr(system, asked["do"])(**asked["with"])
            answer = {"is": value, "peak_rss_bytes": peak_rss_bytes()}
        except Exception as error:  # whatever a peer raises is the end of its own visit alone
            said = str(error).strip().split("\n")[0].rstrip(".")
            answer = {"problem": f"{type(error).__name__}: {said}" if said else repr(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_rss_bytes() -> int | None:
    """The largest resident set of this process so far; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def main() -> None:
    """Serve the module that the command names."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(import_module(sys.argv[1]), sys.stdin, answers)


if __name__ == "__main__":
    main()
