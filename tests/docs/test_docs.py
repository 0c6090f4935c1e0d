# SPDX-License-Identifier: Apache-2.0
"""The documentation is right: links lead somewhere, commands exist, the reference shows every module."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edge_moe.cli import build_parser
from edge_moe.testing.markdown_files import DOCUMENTS, ROOT, Document

# A part of a command that the reader replaces.
PLACEHOLDER = re.compile(r"\.\.\.|…")


def subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    found: Mapping[str, argparse.ArgumentParser] = action.choices
    return found


PARSER = build_parser()
COMMANDS = subcommands(PARSER)
OPTIONS = {option for command in COMMANDS.values() for option in command._option_string_actions}
# options of the scripts, and of torchrun
SCRIPTS = [
    *ROOT.glob("board/*/*.py"),
    *ROOT.glob("board/*/*.sh"),
    *ROOT.glob("sim/*.py"),
    *ROOT.glob("rtl/*.py"),
]
OTHER_OPTIONS = {
    "--nproc-per-node",
    *(option for path in SCRIPTS for option in re.findall(r"--[a-z][a-z-]+", path.read_text())),
}


# Links


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    assert list(DOCUMENTS[name].broken_links()) == []


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` (c)!\n\n# A b c\n[x](gone.md) [`y`](#a-b-c) [y](#a-b-c-1) [z](#d) `[n](none.md)`\n"
    )
    broken = list(Document(page, tmp_path).broken_links())
    assert broken == ["gone.md: no such file", "#d: no such heading"]
    assert sum(len(document.links) for document in DOCUMENTS.values()) >= 25
    assert {"README.md", "docs/SPEC.md", "hls/README.md"} <= set(DOCUMENTS)


# Commands


def commands_of(document: Document) -> Iterator[tuple[str, bool]]:
    """Lines of code blocks and inline code, and whether each is a whole line."""
    for language, text, _ in document.blocks:
        if language in ("", "bash", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                yield re.sub(r"\s#\s.*", "", line).strip(), True
    for span in document.spans:
        yield span.strip(), False


QUOTED = [
    (name, command, whole)
    for name, document in DOCUMENTS.items()
    for command, whole in dict(commands_of(document)).items()
    if re.match(r"(edge-moe|make|--\w[\w-]+)( |$)", command)
]


def test_commands_are_quoted() -> None:
    kinds = [command.split()[0] for _, command, _ in QUOTED]
    assert kinds.count("edge-moe") >= 50
    assert kinds.count("make") >= 20
    assert sum(kind.startswith("--") for kind in kinds) >= 20


@pytest.mark.parametrize(
    ("name", "command", "whole"), [quoted for quoted in QUOTED if quoted[1].startswith("edge-moe")]
)
def test_quoted_commands_exist(
    name: str, command: str, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)[1:]
    if not words or words[0] in ("--version", "--help"):
        return
    assert words[0] in COMMANDS, f"{name}: {command}"
    known = COMMANDS[words[0]]._option_string_actions
    for word in words[1:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{name}: {command}"
    if whole and not PLACEHOLDER.search(command):
        try:
            PARSER.parse_args(words)
        except SystemExit:
            pytest.fail(f"{name}: {command}: {capsys.readouterr().err.splitlines()[-1]}")


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name, command, _ in QUOTED if command.startswith("--")]
)
def test_quoted_options_exist(name: str, command: str) -> None:
    option = re.split(r"[ =]", command)[0]
    assert option in OPTIONS | OTHER_OPTIONS, f"{name}: {command}"


def makefile(folder: str) -> str:
    """Text of a folder's Makefile and of those that it includes."""
    text = (ROOT / folder / "Makefile").read_text()
    for included in re.findall(r"^include (\S+\.mk)$", text, re.MULTILINE):
        text += (ROOT / folder / included).read_text()
    return text


@pytest.mark.parametrize(
    ("name", "command"), [(name, command) for name, command, _ in QUOTED if command.startswith("make")]
)
def test_quoted_targets_exist(name: str, command: str) -> None:
    words = shlex.split(command)[1:]
    if words == ["-C"]:
        return
    folder = Path(DOCUMENTS[name].path.parent.relative_to(ROOT)).as_posix()
    if words[:1] == ["-C"]:
        folder, words = words[1], words[2:]
    elif not (ROOT / folder / "Makefile").is_file():
        folder = "."
    text = makefile(folder)
    goals = set(re.findall(r"^([\w-]+(?: [\w-]+)*):(?!=)", text, re.MULTILINE))
    targets = {target for names in goals for target in names.split()}
    for word in words:
        if PLACEHOLDER.fullmatch(word) or word.startswith("["):
            continue
        variable, equals, _ = word.partition("=")
        if equals:
            assert re.search(rf"\$\({variable}\b|\b{variable},", text), f"{name}: {command}: no {variable}"
        else:
            assert word in targets, f"{name}: {command}: no target {word} in {folder}"


# Reference

HOST = ("contract", "golden", "runtime", "backends")
NOT_SHOWN = {"scenes", "testing"}  # used through edge_moe.data; for tests alone
SINGLE = {
    "config": (
        *("settings", "config", "accelerator", "tasks", "info", "packaged"),
        *("cache", "places", "checkpoint", "distributed"),
    ),
    "backends": ("torch_backend",),
}
HOST_SINGLE = {"runtime": ("errors", "files", "config")}


def modules_of(package: str) -> set[str]:
    """A package with its modules and packages."""
    folder = ROOT / ("host" if package.startswith("edge_moe_host") else "model")
    paths = [path for path in (folder / package.replace(".", "/")).rglob("*.py") if path.stem != "__main__"]
    names = (path.relative_to(folder).with_suffix("").as_posix().replace("/", ".") for path in paths)
    return {name.removesuffix(".__init__") for name in names}


def expected_pages() -> dict[str, set[str]]:
    """Modules that each page of the reference shows: a page has the name of its package."""
    packages = {name: f"edge_moe_host.{name}" for name in HOST}
    for path in (ROOT / "model" / "edge_moe").glob("*/__init__.py"):
        if path.parent.name not in NOT_SHOWN:
            packages[path.parent.name] = f"edge_moe.{path.parent.name}"
    pages = {page: modules_of(package) for page, package in packages.items()}
    for package, single in (("edge_moe", SINGLE), ("edge_moe_host", HOST_SINGLE)):
        for page, names in single.items():
            pages.setdefault(page, set()).update(f"{package}.{name}" for name in names)
    return pages


def test_reference_shows_every_module() -> None:
    shown = {
        path.stem: re.findall(r"^::: ([\w.]+)$", path.read_text(), re.MULTILINE)
        for path in (ROOT / "docs" / "api").glob("*.md")
    }
    for page, names in shown.items():
        assert len(names) == len(set(names)), page
    assert {page: set(names) for page, names in shown.items()} == expected_pages()
    assert sum(map(len, shown.values())) >= 120


def test_pins_of_the_site_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [entry.replace("[python]", "") for entry in project["optional-dependencies"]["docs"]]
    locked = (ROOT / "requirements-docs.txt").read_text().splitlines()
    assert wanted
    assert set(wanted) <= set(locked)
    assert all("==" in line for line in locked if not line.startswith("#"))


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = {name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/")}
    listed = set(re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, re.MULTILINE))
    assert pages <= listed
    assert len(listed) >= 15
