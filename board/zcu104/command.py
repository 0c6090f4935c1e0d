# SPDX-License-Identifier: Apache-2.0
"""What the commands of this folder share: a bad argument or a missing package is one sentence, status 2."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn


@contextlib.contextmanager
def packages(command: str) -> Iterator[None]:
    """End the command with one sentence when an import in the block fails."""
    try:
        yield
    except ImportError as missing:
        print(
            f"{command}: {missing}: on a board run install.sh, then this with the Python that it names; on "
            "a PC run 'make .venv-board/.ready' in the project, then this with .venv-board/bin/python.",
            file=sys.stderr,
        )
        sys.exit(2)


class Parser(argparse.ArgumentParser):
    """Bad arguments are one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help.\n")


def whole(what: str, least: int, most: int = 1 << 31) -> Callable[[str], int]:
    """Reads an argument that is a number of something from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            if least <= int(text) <= most:
                return int(text)
        except ValueError:
            pass
        upper = f"to {most}" if most < 1 << 31 else "or more"
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}: give {least} {upper}")

    return read
