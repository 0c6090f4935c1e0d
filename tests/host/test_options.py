# SPDX-License-Identifier: Apache-2.0
"""Options of a backend, from a command line or from Python: converted as it declares them, or refused."""

from pathlib import Path
from typing import Any

import pytest

from edge_moe_host import Accelerator
from edge_moe_host.backends.onnx import OnnxAccelerator
from edge_moe_host.errors import BackendError, BundleError, listed
from edge_moe_host.runtime.accelerator import _converted, parse_option


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("3", int, 3),
        ("0.5", float, 0.5),
        (2, float, 2.0),
        ("2024", str | Path | None, "2024"),
        (None, str | Path | None, None),
        ("7", int | None, 7),
        ("x", Any, "x"),
    ],
)
def test_values_become_what_is_declared(value: Any, hint: Any, expected: Any) -> None:
    found = _converted("name", "option", value, hint)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        ("x", int, "option 'o' of backend 'b' is 'x': it must be int"),
        ("soon", float, "is 'soon': it must be float"),
        (5, str | Path | None, "is 5: it must be str or Path"),
        ([1], int, r"is \[1\]: it must be int"),
    ],
)
def test_other_values_are_refused(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        _converted("b", "o", value, hint)


def test_threads_are_bounded() -> None:
    for threads in (0, -1, 99_999_999):
        with pytest.raises(BackendError, match=f"'threads' .* is {threads}: it must be between 1 and 1024"):
            OnnxAccelerator()._open(threads=threads)


def test_the_option_that_was_meant_is_named() -> None:
    with pytest.raises(BackendError, match=r"takes graphs, provider, threads \(did you mean 'graphs'\?\)"):
        Accelerator.open("onnx", "bundle", graph="export")
    assert listed(("b", "a"), "zzz") == "b, a"
    assert listed((), "a") == ""


def test_texts_of_the_command_line() -> None:
    assert parse_option(" graphs =a=b") == ("graphs", "a=b")
    with pytest.raises(BackendError, match="option 'graphs' has no value: write KEY=VALUE"):
        parse_option("graphs")


def test_a_bundle_that_is_no_path_is_refused() -> None:
    with pytest.raises(BundleError, match="bundle = None is not a folder's path"):
        Accelerator.open("golden", None)  # type: ignore[arg-type]
