"""Signatures that show every keyword argument, those of a TypedDict too."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

P = ParamSpec("P")
R = TypeVar("R")


def spelled_out(
    settings: type, defaults: Mapping[str, object]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of functions whose last argument is `**name: Unpack[settings]`.

    Help, notebooks and `inspect` then list each key of the TypedDict as an argument of its own,
    with its default from `defaults`, or None. A name that is no argument raises TypeError.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = _signature(function, settings, defaults)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in signature.parameters:
                    said = f"got an unexpected keyword argument {name!r}"
                    raise TypeError(f"{function.__qualname__}() {said}")
            return function(*args, **kwargs)

        vars(checked)["__signature__"] = signature
        return checked

    return decorate


def _signature(
    function: Callable[..., Any], settings: type, defaults: Mapping[str, object]
) -> inspect.Signature:
    """The function's signature with the keys of `settings` in the place of its last argument."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    keys = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind
        )
        for name, kind in get_type_hints(settings).items()
    ]
    return signature.replace(parameters=[*own, *keys])
