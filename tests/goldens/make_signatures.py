"""Writes signatures.json, the public names with their arguments: python tests/goldens/make_signatures.py."""

import inspect
import json
from pathlib import Path
from typing import Any

import keras_effnet

PLAIN = (type(None), bool, int, float, str, tuple)


def argument(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = parameter.default
    if default is parameter.empty:
        return stars + parameter.name
    # A table as a default would make this file as long as the table.
    shown = repr(default) if isinstance(default, PLAIN) and len(repr(default)) < 80 else type(default).__name__
    return f"{parameter.name}={shown}"


def signature(function: Any) -> str:
    """The arguments as one would type them, without annotations, whose text depends on the version of Python."""
    parts, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only = keyword_only or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        parts.append(argument(parameter))
    return f"({', '.join(parts)})"


def signatures() -> dict[str, str]:
    """Each public name with its arguments; one that is not called has the name of its type."""
    found = {}
    for name in keras_effnet.__all__:
        value = getattr(keras_effnet, name)
        is_error = inspect.isclass(value) and issubclass(value, Exception)  # takes what ValueError takes
        found[name] = signature(value) if callable(value) and not is_error else type(value).__name__
        if inspect.isclass(value) and value.__module__.startswith("keras_effnet"):
            methods = {key: method for key, method in vars(value).items() if inspect.isfunction(method)}
            found |= {f"{name}.{key}": signature(m) for key, m in methods.items() if not key.startswith("_")}
    return found


if __name__ == "__main__":
    Path(__file__).with_name("signatures.json").write_text(json.dumps(signatures(), indent=1) + "\n", "utf-8")
