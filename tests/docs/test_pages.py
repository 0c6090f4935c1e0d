# SPDX-License-Identifier: Apache-2.0
"""The guides are right: quoted messages occur in the sources, examples run, tables are complete."""

import ast
import dataclasses
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_moe.accelerator import AcceleratorConfig, load_accelerator, load_board
from edge_moe.cli import main
from edge_moe.data import open_dataset
from edge_moe.data.folder import Description, TaskFolder
from edge_moe.estimate.inventory import inventory
from edge_moe.estimate.resources import ESTIMATED, require_fit
from edge_moe.settings import packaged_names
from edge_moe.testing.markdown_files import DOCUMENTS, ROOT, Document
from edge_moe.testing.source_messages import (
    WILD,
    PythonMessages,
    Template,
    closest,
    messages,
    says,
    script_messages,
)
from edge_moe_host import errors
from edge_moe_host.contract.bundle import load_bundle
from edge_moe_host.errors import EdgeMoEError
from edge_moe_host.runtime.accelerator import backend_names

# Messages

MESSAGES = [
    (name, row[0].strip("`"))
    for name, document in DOCUMENTS.items()
    for table in document.tables
    for row in table.rows
    if table.heading[0] == "message"
]


@pytest.mark.parametrize(("name", "message"), MESSAGES)
def test_quoted_messages_are_the_sources(name: str, message: str) -> None:
    assert len(message.replace(WILD, "").replace(" ", "")) >= 8, (
        f"{name}: too little of '{message}' is quoted"
    )
    if not any(says(template.text, message) for template in messages()):
        near = closest(message, messages())
        pytest.fail(f"{name}: no source says: {message}\n{near.path} says: {near.text}")


def test_messages_are_quoted() -> None:
    pages = [name for name, _ in MESSAGES]
    assert pages.count("docs/troubleshooting.md") >= 60
    assert pages.count("board/zcu104/README.md") >= 20


@pytest.mark.parametrize(
    ("message", "same"),
    [
        ("task '…' needs … bytes, and … are left", True),
        ("task '…' needs …", True),
        ("task '…' needs … bytes, and … are left.", True),
        ("task '…' needs … bytes", False),
        ("'…' needs … bytes, and … are left", False),
        ("task '…' needs … bytes, and … were left", False),
        ("task 'depth' needs … bytes, and … are left", False),
        ("bytes, and", False),
    ],
)
def test_quoted_messages_are_compared_from_end_to_end(message: str, same: bool) -> None:
    assert says("task '…' needs … bytes, and … are left.", message) == same


def test_the_closest_message_has_most_of_the_words() -> None:
    known = [
        Template("'…' is missing.", "a.py"),
        Template("'…' is missing: build it with make -C hls csim.", "b.py"),
        Template("build and test it.", "c.py"),
    ]
    assert closest("'…' is missing: build it with cmake", known).path == "b.py"


SOURCE = """
RULE = "{} is odd"
def refuse(size, text):
    if size:
        raise ValueError(text)
def counted(n):
    return f"{n} of them"
def run(name, found, log):
    '''Not a message.'''
    said = f"'{name}' is " + ("old" if found else f"{found} new")
    refuse(3, f"{name} is refused")
    log.info("%s took %.1f s", name, 3)
    if name == "not a message either":
        raise AnyError(said, 7)
    print(RULE.format(name), f"there are {counted(3)}")
"""


def test_messages_of_python() -> None:
    returned = dict(PythonMessages(SOURCE).returns())
    assert returned == {"counted": "… of them"}
    lists = {name: [text] for name, text in returned.items()}
    assert sorted(PythonMessages(SOURCE, lists)) == [
        "'…' is old",
        "'…' is … new",
        "there are …",
        "there are … of them",
        "… is odd",
        "… is refused",
        "… took … s",
    ]


def test_messages_of_scripts() -> None:
    make = (
        "NO_TOOL := no $(TOOL): \\\n  install it\n"
        'a:\n\t@test -x $(TOOL) || { echo "$(NO_TOOL)"; exit 1; }\n'
        "$(if $(B),$(error B='$(B)' is odd))\n"
    )
    assert list(script_messages(make)) == ["no …: install it", "B='…' is odd"]
    assert list(script_messages('fail "$n of ${m} at [file normalize $x]"')) == ["… of … at …"]


# Examples


PAGES = [name for name, document in DOCUMENTS.items() if any(marked for *_, marked in document.blocks)]


def run_page(name: str) -> dict[str, Any]:
    """Execute the marked blocks of a page in the current folder; return the names that they define."""
    names: dict[str, Any] = {"__name__": "guide"}
    for language, text, marked in DOCUMENTS[name].blocks:
        if marked:
            assert language == "python"
            exec(compile(text, name, "exec"), names)
    return names


def test_which_examples_run() -> None:
    """test_commands_run.py runs them, among the commands of their page."""
    assert PAGES == ["README.md", "docs/boards.md", "docs/data.md", "docs/host.md"]
    marked = [text for name in PAGES for _, text, marked in DOCUMENTS[name].blocks if marked]
    assert len(marked) >= 10


def test_other_examples_are_python() -> None:
    blocks = [
        (name, text)
        for name, document in DOCUMENTS.items()
        for language, text, marked in document.blocks
        if language == "python" and not marked
    ]
    assert blocks
    for name, text in blocks:
        body = f"def example(name, root, checked, tasks):\n{text}" if text.startswith(" ") else text
        compile(body, name, "exec")


def test_data_set_of_the_guide_gets_its_name(
    surroundings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4: the class in a module of its own."""
    monkeypatch.chdir(tmp_path)
    names = run_page("docs/data.md")
    assert "--data orchards:Orchard:DIR" in DOCUMENTS["docs/data.md"].text
    monkeypatch.setitem(sys.modules, "orchards", SimpleNamespace(Orchard=names["Orchard"]))
    dataset = open_dataset("orchards:Orchard:orchard", "val", {"semseg": 3}, (32, 64), 0, 0)
    assert len(dataset) == 4
    assert set(np.unique(dataset[0]["semseg"])) == {0, 1, 2, 255}


def test_the_folder_of_the_guide_becomes_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command after the example, as a reader would type it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_MOE_CACHE", "off")
    blocks = list(DOCUMENTS["docs/data.md"].blocks)
    exec(compile(next(text for _, text, marked in blocks if marked), "docs/data.md", "exec"), {})
    commands = next(
        text for _, text, _ in blocks if text.startswith("edge-moe train mini --data folder:garden")
    )
    for command in commands.replace("\\\n", " ").splitlines():
        assert main(shlex.split(command)[1:]) == 0, command
    assert [len(list(Path(name).iterdir())) for name in ("seen", "seen_too")] == [2, 1]
    assert [path.name for path in sorted(Path("results").iterdir())] == [
        f"photo 1.{task}.png" for task in ("depth", "semseg")
    ]
    names = [style.name for style in load_bundle(Path("bundle")).tasks["semseg"].entry.classes]
    assert names == ["soil", "plant", "fruit"]


def test_keys_of_dataset_toml_are_explained() -> None:
    listed = [code(row[0])[0] for row in table("docs/data.md", "key of a task")]
    assert sorted(listed) == sorted(spec.name for spec in dataclasses.fields(TaskFolder))
    keys = [code(row[0])[0].partition(".")[0] for row in table("docs/data.md", "key")]
    assert sorted(keys) == sorted(spec.name for spec in dataclasses.fields(Description))


# Tables


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_have_no_cell_beyond_their_heading(name: str) -> None:
    assert [cell for table in DOCUMENTS[name].tables for cell in table.surplus()] == []


def test_cells_beyond_the_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "| a | b |\n|---|---|\n| 1 | 2 | 3 |\n| 1 |\n| `1 \\| 1` | 2 |\n| 1 | 2 | |\n\n"
        "- in a list:\n\n  | a |\n  |---|\n  | 1 | 2 |\n\n```\n| a |\n|---|\n| 1 | 2 |\n```\n"
    )
    first, second = Document(page, tmp_path).tables
    assert (first.heading, len(first.rows), list(first.surplus())) == (["a", "b"], 4, ["3"])
    assert (second.heading, second.rows, list(second.surplus())) == (["a"], [["1"]], ["2"])
    assert sum(len(document.tables) for document in DOCUMENTS.values()) >= 40


def table(name: str, first: str) -> list[list[str]]:
    """Rows of the page's table with this first heading."""
    return next(table.rows for table in DOCUMENTS[name].tables if table.heading[0] == first)


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_fields_of_an_accelerator_are_explained() -> None:
    listed: dict[str, int] = {}
    for names, values, _ in table("docs/boards.md", "field"):
        listed.update(zip(code(names), map(int, values.split(", ")), strict=True))
    assert listed == dataclasses.asdict(load_accelerator("zcu104"))


def test_fixed_fields_are_fixed() -> None:
    fixed = [name for names, _, text in table("docs/boards.md", "field") if text.startswith("fixed")
             for name in code(names)]  # fmt: skip
    config, refused = load_accelerator("zcu104"), []
    for spec in dataclasses.fields(AcceleratorConfig):
        try:
            dataclasses.replace(config, **{spec.name: 2 * getattr(config, spec.name)})
        except EdgeMoEError as error:
            if " needs " in str(error):
                refused.append(spec.name)
    assert refused == [spec.name for spec in dataclasses.fields(AcceleratorConfig) if spec.name in fixed]


def test_the_weight_fifo_is_in_the_memory_that_the_guide_says() -> None:
    for size, storage in ((512 * 1024 - 128, "bram"), (512 * 1024, "uram")):
        listed = inventory(dataclasses.replace(load_accelerator("zcu104"), fifo_bytes=size))
        assert next(item for item in listed.streams if item.name == "weights").storage.value == storage


def test_the_boards_of_the_guide() -> None:
    """Percentages follow from the estimate, and a board is said to fit when all of it does."""
    config, known = load_accelerator("zcu104"), packaged_names("accelerators")
    rows = table("docs/boards.md", "board")
    assert [row[0] for row in rows][:3] == ["ZCU104", "ZCU106", "ZCU102"]
    for name, _, *numbers, use in rows:
        if not numbers[0]:
            continue
        available = dict(
            zip(ESTIMATED, (int(number.replace(",", "")) for number in numbers[:3]), strict=True)
        )
        totals = inventory(config, available["URAM"] > 0).totals()
        shares = [f"{100 * totals[key] / count:.1f}" if count else "" for key, count in available.items()]
        assert numbers[3:] == shares, name
        fits = all(totals[key] <= count for key, count in available.items())
        assert fits or use.startswith("no: too few DSPs and block RAMs"), name
        if name.lower() in known:
            board = load_board(name.lower())
            assert {key: board.resources[key] for key in ESTIMATED} == available


def test_the_board_of_the_guide_can_be_built_for(tmp_path: Path) -> None:
    small, mine = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "boards.md").read_text(), re.DOTALL)
    for number, text in enumerate((small, mine)):
        (tmp_path / f"{number}.toml").write_text(text)
        config, board = (load(str(tmp_path / f"{number}.toml")) for load in (load_accelerator, load_board))
        require_fit(inventory(config, board.ultraram), "mine", board)
    assert board.name == "MY BOARD"


def options_of(name: str) -> list[str]:
    """Parameters of a backend's own ``_open``, from its source: one may lack what it imports."""
    for path in [
        *(ROOT / "host/edge_moe_host/backends").glob("*.py"),
        ROOT / "model/edge_moe/torch_backend.py",
    ]:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name == f"{name.capitalize()}Accelerator":
                opening = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "_open")
                return [argument.arg for argument in opening.args.args if argument.arg != "self"]
    raise AssertionError(name)


def test_backends_and_their_options_are_listed() -> None:
    rows = {code(row[0])[0]: code(row[2]) for row in table("docs/host.md", "name")}
    assert sorted(rows) == sorted(backend_names())
    for name, listed in rows.items():
        options = options_of(name)
        assert [word for word in listed if word in options] == options, name


def test_errors_are_listed() -> None:
    values = vars(errors).items()
    classes = {name for name, v in values if isinstance(v, type) and issubclass(v, errors.EdgeMoEError)}
    listed = {name for row in table("docs/host.md", "class") for cell in row for name in code(cell)}
    assert classes - {"EdgeMoEError"} <= listed


def test_labels_are_as_the_loaders_say() -> None:
    from edge_moe.data import nyud, pascal
    from edge_moe.tasks import TASKS

    assert [code(row[0])[0] for row in table("docs/data.md", "task")] == list(TASKS)
    for row, known in zip(table("docs/data.md", "yours")[::2], (nyud, pascal), strict=True):
        said = {task: tuple(map(int, re.findall(r"\d+", text))) for task, text in
                re.findall(r"`(\w+)` ([\d or]+)", row[2])}  # fmt: skip
        assert said == known.KNOWN_TASKS
