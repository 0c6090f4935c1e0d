# SPDX-License-Identifier: Apache-2.0
"""Typed records from plain data (TOML, JSON) and back.

Unknown keys, missing keys and wrong types are errors that name the key.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_moe_host.errors import EdgeMoEError, listed

_SHOWN = 60  # characters of a value in an error


def from_dict(
    cls: type,
    data: object,
    where: str = "",
    *,
    place: str = "",
    error: type[EdgeMoEError] = EdgeMoEError,
    natural: bool = False,
) -> Any:
    """Build the dataclass ``cls`` from plain data, checking keys and types.

    Errors are of the type ``error`` and name the key: ``where`` is the key of ``data`` itself, ``place`` its
    file. With ``natural``, integers may not be negative.
    """
    return _Reader(place and f"{place}: ", error, natural).record(cls, data, where)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (JSON and ``torch.load(weights_only=True)`` safe) that :func:`from_dict` reads back."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    result: dict[str, Any] = plain(config)
    return result


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@dataclass(frozen=True)
class _Reader:
    place: str
    error: type[EdgeMoEError]
    natural: bool

    def fail(self, text: str) -> EdgeMoEError:
        return self.error(self.place + text)

    def record(self, cls: type, data: object, where: str) -> Any:
        if not isinstance(data, Mapping):
            raise self.fail(f"{where or cls.__name__} = {_shown(data)} is not a table.")
        hints = typing.get_type_hints(cls)
        known = {f.name: f for f in dataclasses.fields(cls)}
        prefix = f"{where}." if where else ""
        for key in data:
            if key not in known:
                raise self.fail(f"unknown key '{prefix}{key}': {cls.__name__} has {listed(known, str(key))}.")
        for name, spec in known.items():
            required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
            if required and name not in data:
                raise self.fail(f"key '{prefix}{name}' is missing: {cls.__name__} needs it.")
        return cls(**{key: self.value(hints[key], value, prefix + key) for key, value in data.items()})

    def value(self, hint: Any, value: Any, where: str) -> Any:
        """``value`` checked against a type hint; integers become floats where the hint is float."""
        if dataclasses.is_dataclass(hint):
            return self.record(typing.cast(type, hint), value, where)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Literal:
            if value not in args:
                known = listed(map(str, args), str(value))
                raise self.fail(f"{where} = {_shown(value)} is not allowed: it is one of {known}.")
            return value
        if origin in (tuple, list):
            return self.sequence(origin, args, value, where)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                raise self.fail(f"{where} = {_shown(value)} has the wrong type: it must be a table.")
            return {str(key): self.value(args[1], item, f"{where}.{key}") for key, item in value.items()}
        return self.scalar(hint, value, where)

    def sequence(self, origin: type, args: tuple[Any, ...], value: Any, where: str) -> Any:
        """A list or tuple; a TOML list may become either."""
        fixed = origin is tuple and not (len(args) == 2 and args[1] is Ellipsis)
        if not isinstance(value, list | tuple) or (fixed and len(value) != len(args)):
            size = f"a list of {len(args)} values" if fixed else "a list"
            raise self.fail(f"{where} = {_shown(value)} has the wrong type: it must be {size}.")
        kinds = list(args) if fixed else [args[0]] * len(value)
        items = zip(kinds, value, strict=True)
        return origin(self.value(kind, item, f"{where}[{at}]") for at, (kind, item) in enumerate(items))

    def scalar(self, hint: Any, value: Any, where: str) -> Any:
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise self.fail(f"{where} = {_shown(value)} has the wrong type: it must be {hint.__name__}.")
        if hint is float and not math.isfinite(value):
            raise self.fail(f"{where} = {value!r} is not allowed: it must be finite.")
        if hint is int and self.natural and value < 0:
            raise self.fail(f"{where} = {value!r} is not allowed: it must not be negative.")
        return value
