"""The command line that runs, as a page of results names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource

_INTERPRETER = re.compile("=[^,]*/[^,]*")
"""The path of a program in a value such as `synfer-rt=/opt/bin/python`."""


def typed(program: str) -> str:
    """The running click command as typed: `program` and the given options, without paths."""
    context = click.get_current_context()
    words = [program]
    for option in context.command.params:
        name = option.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        values = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
        for one in values:
            said = f"{one:g}" if isinstance(one, float) else _INTERPRETER.sub("=PYTHON", str(one))
            if not isinstance(one, Path) and "/" not in said:
                words.append(option.opts[0] if one is True else f"{option.opts[0]} {said}")
    return " ".join(words)
