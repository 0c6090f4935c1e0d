# SPDX-License-Identifier: Apache-2.0
"""TOML files of the package or of its user, and the rules that their values obey."""

import tomllib
from importlib import resources
from typing import Any

from edge_moe_host.errors import EdgeMoEError, listed
from edge_moe_host.files import read_text


def require(condition: bool, where: str, value: object, rule: str) -> None:
    """EdgeMoEError unless the condition holds for the value of the key ``where``."""
    if not condition:
        raise EdgeMoEError(f"{where} = {value!r} is not allowed: {rule}.")


def packaged_names(folder: str) -> list[str]:
    """Names of the TOML files in a folder of this package."""
    paths = (resources.files("edge_moe") / folder).iterdir()
    return sorted(path.name.removesuffix(".toml") for path in paths if path.name.endswith(".toml"))


def read_toml(name_or_path: str, kind: str, folder: str, known: list[str]) -> dict[str, Any]:
    """Plain data of a packaged file, or of the .toml file at a path. EdgeMoEError if it cannot be read."""
    if name_or_path.endswith(".toml"):
        text = read_text(name_or_path)
    elif name_or_path in known:
        packaged = resources.files("edge_moe").joinpath(folder, f"{name_or_path}.toml")
        text = packaged.read_text(encoding="utf-8")
    else:
        names = listed(known, name_or_path)
        raise EdgeMoEError(
            f"unknown {kind} '{name_or_path}': known are {names}, or the path of a .toml file."
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgeMoEError(f"{kind} '{name_or_path}' is not valid TOML: {error}.") from None
