"""The library's sentences in the words of the command line.

The library names an argument as Python spells it, in backticks: `accept_rate`, `layout="none"`,
`resume=True`. A reader of the terminal knows the option: --accept-rate, --layout none, --resume.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Sequence
from typing import Any, cast

import click

_QUOTED = re.compile(r"`([a-z][^`\n]*)`")


def in_options(text: str, parameters: Sequence[click.Parameter]) -> str:
    """`text` with its arguments in backticks written as the options of a command, without them.

    An argument of the command line is written as the usage line has it, such as CHECKPOINT. What is
    none of the command's `parameters` stays as it is, backticks too.
    """
    by_name = {_name(spelling): p for p in parameters for spelling in (p.opts[0], p.name or "")}

    def option(found: re.Match[str]) -> str:
        words = _words(found[1], by_name)
        return found[0] if words is None else " ".join(words)

    return _QUOTED.sub(option, text)


def in_current_options(text: str) -> str:
    """`text` as `in_options` writes it for the command that runs; as it is where none does."""
    context = click.get_current_context(silent=True)
    return text if context is None else in_options(text, context.command.params)


def _name(spelling: str) -> str:
    """An option or parameter's name as Python has it: --accept-rate and `format_` lose the rest."""
    return spelling.lstrip("-").rstrip("_").replace("-", "_")


def _words(code: str, by_name: dict[str, click.Parameter]) -> list[str] | None:
    """An argument's name, or keyword arguments with commas, as options; None for other code."""
    if code in by_name:
        return [_written(by_name[code])]
    try:
        call = ast.parse(f"_({code})", mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call) or call.args or not call.keywords:
        return None
    words: list[str] = []
    for keyword in call.keywords:
        parameter = by_name.get(keyword.arg or "")
        values = None if parameter is None else _values(parameter, keyword.value)
        if parameter is None or values is None:
            return None
        for value in values:
            words += [_written(parameter), value] if value else [_written(parameter)]
    return words


def _written(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.metavar or (parameter.name or "").upper()
    return max(parameter.opts, key=len)


def _values(parameter: click.Parameter, node: ast.expr) -> list[str] | None:
    """A value as the command line has it, once for each time the option is repeated.

    A flag has an empty one; None where the option cannot be written so.
    """
    try:
        value: Any = ast.literal_eval(node)
    except ValueError:  # a name that stands for a value, such as DIR
        return [ast.unparse(node)]
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return [""] if value is True else None
    if isinstance(value, dict):
        pairs = cast(dict[Any, Any], value)
        parts = [f"{key}={part}" for key, part in pairs.items()]
    elif isinstance(value, list | tuple):
        parts = list(map(str, cast(Sequence[Any], value)))
    else:
        parts = [str(value)]
    if not parameter.multiple:
        metavar = parameter.metavar or ""
        between = {"HxW": "x", "K/N": "/"}.get(metavar, ":" if ":" in metavar else ",")
        parts = [between.join(parts)]
    return [shlex.quote(part) for part in parts]
