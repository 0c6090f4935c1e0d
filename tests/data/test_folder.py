# SPDX-License-Identifier: Apache-2.0
"""Folders with a ``dataset.toml``: labels, units, splits, wrong input; plug-ins; unlabelled pictures."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_moe.data import open_dataset
from edge_moe.data.base import Split, TaskDataset
from edge_moe.testing.trees import colors, save_jpg, save_npy, save_palette_png, save_png, save_text
from edge_moe_host.errors import EdgeMoEError

SIZE = (4, 6)
LABELS = np.resize(np.array([0, 1, 2, 255], np.uint8), SIZE)
COLOURS = ((0, 0, 0), (0, 200, 0), (200, 0, 0))
NAMES = 'classes = ["ground", "plant", "fruit"]'
IN_COLOUR = f"{NAMES}, colours = [[0, 0, 0], [0, 200, 0], [200, 0, 0]], ignore_colours = [[9, 9, 9]]"
DEPTH = np.resize(np.array([0, 1500, 2500], np.uint16), SIZE)
METRES = DEPTH / np.float32(1000)


def make(root: Path, text: str, count: int = 5) -> Path:
    for number in range(count):
        save_jpg(root / f"images/picture {number}.jpg", colors(SIZE, number))
        save_png(root / f"masks/picture {number}.png", LABELS)
        save_png(root / f"depth/picture {number}.png", DEPTH)
    save_text(root / "dataset.toml", text)
    return root


def open_split(root: Path, tasks: Mapping[str, int], split: str = "train") -> TaskDataset:
    return open_dataset(f"folder:{root}", split, tasks, SIZE, 0, 0)


def first(root: Path, task: str, channels: int = 1) -> np.ndarray:
    return open_split(root, {task: channels})[0][task]


def in_colour() -> np.ndarray:
    return np.array([*COLOURS, (9, 9, 9)], np.uint8)[np.where(LABELS == 255, 3, LABELS)]


def store(root: Path, folder: str, values: np.ndarray) -> None:
    """The same label for every picture, as PNG or .npy."""
    for path in (root / "images").iterdir():
        for old in (root / folder).glob(f"{path.stem}.*"):
            old.unlink()
        save = save_png if values.dtype in (np.uint8, np.uint16) else save_npy
        save(root / folder / f"{path.stem}.{'png' if save is save_png else 'npy'}", values)


def test_the_smallest_file(tmp_path: Path) -> None:
    data = open_split(make(tmp_path, f'tasks.semseg = {{folder = "masks", {NAMES}}}'), {"semseg": 3})
    assert data.class_names == {"semseg": ("ground", "plant", "fruit")}
    assert data.palette["semseg"].shape == (3, 3)
    np.testing.assert_array_equal(data[0]["semseg"], LABELS)
    assert len(data) == 4
    val = open_split(tmp_path, {"semseg": 3}, "val")
    every = [set_.image_id(i) for set_ in (data, val) for i in range(len(set_))]
    assert sorted(every) == [f"picture {number}" for number in range(5)]


def test_without_a_file_a_sentence_shows_the_smallest(tmp_path: Path) -> None:
    make(tmp_path, "").joinpath("dataset.toml").unlink()
    with pytest.raises(
        EdgeMoEError, match=r"has no dataset\.toml, .* \(found depth/, images/, masks/\)"
    ) as error:
        open_split(tmp_path, {"semseg": 2})
    save_text(tmp_path / "dataset.toml", str(error.value).partition("one line, ")[2].rstrip("."))
    assert len(open_split(tmp_path, {"semseg": 2})) == 4


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P", "indices", "foreign palette", "npy", "L"])
def test_masks_in_colour_and_indices(tmp_path: Path, form: str) -> None:
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {IN_COLOUR}}}')
    path = tmp_path / "masks/picture 0.png"
    picture = Image.fromarray(in_colour())
    if form == "P":  # colours in an order of the encoder's own
        picture.quantize(4).save(path)
    elif form in ("RGB", "RGBA"):
        picture.convert(form).save(path)
    elif form == "indices":
        image = Image.fromarray(LABELS, mode="P")
        image.putpalette([*np.array(COLOURS).ravel(), *[9] * 759])
        image.save(path)
    elif form == "foreign palette":
        save_palette_png(path, LABELS)
    elif form == "npy":
        path.unlink()
        save_npy(path.with_suffix(".npy"), LABELS.astype(np.int64))
    every = [
        sample
        for split in ("train", "val")
        for data in [open_split(tmp_path, {"semseg": 3}, split)]
        for sample in [data[index] for index in range(len(data))]
    ]
    for sample in every:
        np.testing.assert_array_equal(sample["semseg"], LABELS)


def test_unknown_colours(tmp_path: Path) -> None:
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {IN_COLOUR}}}')
    wrong = in_colour()
    wrong[0, 0] = (1, 2, 3)
    store(tmp_path, "masks", wrong)
    with pytest.raises(EdgeMoEError, match=r"has the colours \[1, 2, 3\], which dataset\.toml does not name"):
        first(tmp_path, "semseg", 3)
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {NAMES}}}')
    store(tmp_path, "masks", wrong)
    with pytest.raises(
        EdgeMoEError, match=r"is a picture with colours: .* the colours of the classes in dataset"
    ):
        first(tmp_path, "semseg", 3)


def test_stored_values(tmp_path: Path) -> None:
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {NAMES}, values = [7, 1, 26], ignore = [0, 3]}}')
    store(tmp_path, "masks", np.resize(np.array([7, 1, 26, 0, 3], np.uint8), SIZE))
    np.testing.assert_array_equal(first(tmp_path, "semseg", 3), np.resize([0, 1, 2, 255, 255], SIZE))
    store(tmp_path, "masks", np.full(SIZE, 5, np.uint8))
    with pytest.raises(EdgeMoEError, match="has unknown ids 5: allowed are 0 to 1, 3, 7, 26"):
        first(tmp_path, "semseg", 3)


def test_binary_masks(tmp_path: Path) -> None:
    make(tmp_path, 'tasks.saliency = {folder = "masks"}')
    store(tmp_path, "masks", np.resize(np.array([0, 255], np.uint8), SIZE))
    np.testing.assert_array_equal(first(tmp_path, "saliency"), np.resize([0, 1], SIZE))
    make(tmp_path, 'tasks.saliency = {folder = "masks", ignore = [128]}')
    store(tmp_path, "masks", np.resize(np.array([0, 128, 255], np.uint8), SIZE))
    np.testing.assert_array_equal(first(tmp_path, "saliency"), np.resize([0, 255, 1], SIZE))


@pytest.mark.parametrize(
    ("options", "stored", "expected"),
    [
        ("metres_per_unit = 0.001", DEPTH, METRES),
        ("metres_per_unit = 0.001", DEPTH.astype(np.float64), METRES),
        ("", METRES, METRES),
        ("disparity = true", DEPTH, DEPTH),
        ("disparity = true, baseline_focal = 3000", DEPTH, [0, 2, 1.2]),
        ("metres_per_unit = 0.001, ignore = [2500]", DEPTH, [0, 1.5, 0]),
    ],
)
def test_depth_in_its_unit(tmp_path: Path, options: str, stored: np.ndarray, expected: object) -> None:
    make(tmp_path, f'[tasks.depth]\nfolder = "depth"\n{options.replace(", ", chr(10))}')
    store(tmp_path, "depth", stored)
    data = open_split(tmp_path, {"depth": 1})
    np.testing.assert_allclose(data[0]["depth"], np.resize(np.asarray(expected), SIZE), rtol=1e-6)
    assert data[0]["depth"].dtype == np.float32
    assert data.depth_kind == ("inverse" if options == "disparity = true" else "metric")


def test_depth_in_a_float_picture(tmp_path: Path) -> None:
    make(tmp_path, 'tasks.depth = {folder = "depth"}')
    for path in (tmp_path / "depth").iterdir():
        path.unlink()
        Image.fromarray(METRES).save(path.with_suffix(".tif"))
    np.testing.assert_allclose(first(tmp_path, "depth"), METRES)


@pytest.mark.parametrize("values", [DEPTH, METRES * 1000])
def test_depth_without_a_unit(tmp_path: Path, values: np.ndarray) -> None:
    make(tmp_path, 'tasks.depth = {folder = "depth"}')
    store(tmp_path, "depth", values)
    with pytest.raises(
        EdgeMoEError, match=r"metres_per_unit = 0\.001 for millimetres|divide millimetres by 1000"
    ):
        first(tmp_path, "depth")


@pytest.mark.parametrize(("axes", "z"), [("", -1), (', axes = "y up"', 1)])
def test_axes_of_normals(tmp_path: Path, axes: str, z: int) -> None:
    make(tmp_path, f'tasks.normals = {{folder = "normals"{axes}}}')
    store(tmp_path, "normals", np.broadcast_to(np.array([0, -z * 0.6, z * 0.8]), (*SIZE, 3)))
    np.testing.assert_allclose(first(tmp_path, "normals", 3)[0, 0], (0, 0.6, -0.8), rtol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_numbers_that_are_no_measurement(tmp_path: Path, value: float) -> None:
    text = f'tasks.depth = {{folder = "depth"}}\ntasks.semseg = {{folder = "masks", {NAMES}}}'
    make(tmp_path, text)
    for folder in ("depth", "masks"):
        store(tmp_path, folder, np.full(SIZE, value))
    assert not first(tmp_path, "depth").any()
    with pytest.raises(EdgeMoEError, match=r"has unknown ids .*: allowed are 0 to 2, 255"):
        first(tmp_path, "semseg", 3)


def test_a_label_folder_elsewhere(tmp_path: Path) -> None:
    make(tmp_path / "data", f'tasks.semseg = {{folder = "{tmp_path}/labels", {NAMES}}}')
    (tmp_path / "data/masks").rename(tmp_path / "labels")
    np.testing.assert_array_equal(first(tmp_path / "data", "semseg", 3), LABELS)


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_splits_by_folder(tmp_path: Path, layout: str) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            masks = layout.replace("images", "masks").format(split)
            save_png(tmp_path / layout.format(split) / f"{number}.png", colors(SIZE))
            save_png(tmp_path / masks / f"{number}_mask.png", LABELS)
    save_text(tmp_path / "dataset.toml", f'tasks.semseg = {{folder = "masks", suffix = "_mask", {NAMES}}}')
    assert [len(open_split(tmp_path, {"semseg": 3}, split)) for split in ("train", "val")] == [3, 2]
    np.testing.assert_array_equal(first(tmp_path, "semseg", 3), LABELS)
    for name in ("images", "masks"):
        folder = tmp_path / layout.replace("images", name).format("val")
        folder.rename(tmp_path / f"else_{name}")
    with pytest.raises(EdgeMoEError, match="has images of the split 'train', but none of 'val'"):
        open_split(tmp_path, {"semseg": 3}, "val")


def test_splits_by_lists_and_by_fraction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f'tasks.semseg = {{folder = "masks", {NAMES}}}\n'
    make(tmp_path, text + 'split = {train = "lists/a.txt", val = "lists/b.txt"}')
    save_text(tmp_path / "lists/a.txt", "picture 3\nimages/picture 1.jpg\n")
    save_text(tmp_path / "lists/b.txt", "\ufeffpicture 0\n")
    names = [
        [data.image_id(index) for index in range(len(data))]
        for data in (open_split(tmp_path, {"semseg": 3}, split) for split in ("train", "val"))
    ]
    assert names == [["picture 3", "picture 1"], ["picture 0"]]
    assert caplog.messages == []
    save_text(tmp_path / "lists/b.txt", "picture 0\npicture 1\n")
    open_split(tmp_path, {"semseg": 3}, "val")
    assert "has pictures in both lists (1, such as 'picture 1')" in caplog.text
    drawn = set()
    for seed in range(9):
        make(tmp_path, f"{text}split = {{fraction = 0.4, seed = {seed}}}")
        data = open_split(tmp_path, {"semseg": 3}, "val")
        drawn.add(tuple(data.image_id(index) for index in range(len(data))))
        assert len(data) == 2
    assert len(drawn) > 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks = 3", "tasks = 3 has the wrong type: it must be a table"),
        ("tasks.semseg = {", "is not valid TOML"),
        ("", "key 'tasks' is missing"),
        ("[tasks]", "describes no task: a line for one is"),
        (
            'tasks.semseg = {folder = "masks", classes = ["a", "b"], values = [1, 9999999999]}',
            "at most 16 bits",
        ),
        ('tasks.semantic = {folder = "masks"}', "tasks.semantic is no task: tasks are semseg, "),
        ('tasks.semseg = {folder = "masks"}', "classes names 0 classes: 2 to 255"),
        ('tasks.semseg = {folder = "masks", classes = ["a", "a"]}', "names a class twice"),
        (
            'tasks.semseg = {folder = "masks", classes = ["a", "b"], values = [1]}',
            "values needs a different one",
        ),
        (
            'tasks.semseg = {folder = "masks", classes = ["a", "b"], ignore = [1]}',
            "ignore has 1, which is the value",
        ),
        (
            'tasks.semseg = {folder = "masks", classes = ["a", "b"], colours = [[0, 0, 0], [0, 0, 256]]}',
            "0 to 255",
        ),
        (
            'tasks.semseg = {folder = "masks", classes = ["a", "b"], metres_per_unit = 2}',
            "has no meaning for semseg",
        ),
        ('tasks.depth = {folder = "depth", unit = "mm"}', r"unknown key 'tasks\.depth\.unit'"),
        (
            'tasks.depth = {folder = "depth", disparity = true, metres_per_unit = 1}',
            "a disparity is not in metres",
        ),
        ('tasks.depth = {folder = "depth", baseline_focal = 1}', "belongs to disparity = true"),
        ('tasks.normals = {folder = "normals", axes = "left"}', "axes = 'left' is not allowed"),
        ('tasks.depth = {folder = "nowhere", metres_per_unit = 1}', "has no folder 'nowhere'"),
        ('images = "nowhere"\ntasks.depth = {folder = "depth"}', "has no folder 'nowhere'"),
        ('tasks.depth = {folder = "depth"}\nsplit = {train = "a.txt"}', "split needs both lists"),
        ('tasks.depth = {folder = "depth"}\nsplit = {fraction = 1.5}', "a fraction between 0 and 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    make(tmp_path, text)
    with pytest.raises(EdgeMoEError, match=message) as caught:
        open_split(tmp_path, {"semseg": 2} if "semseg" in text else {"depth": 1})
    assert "\n" not in str(caught.value)


def test_encodings_of_the_file(tmp_path: Path) -> None:
    text = f'tasks.semseg = {{folder = "masks", {NAMES.replace("fruit", "öl")}}}'
    make(tmp_path, "\ufeff" + text)
    assert open_split(tmp_path, {"semseg": 3}).class_names["semseg"][2] == "öl"
    (tmp_path / "dataset.toml").write_text(text, encoding="latin-1")
    with pytest.raises(EdgeMoEError, match=r"dataset\.toml' is not UTF-8 text"):
        open_split(tmp_path, {"semseg": 3})


def test_wrong_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {NAMES}}}')
    with pytest.raises(EdgeMoEError, match=r"'semseg' has 7 channels .* labels it with 3"):
        open_split(tmp_path, {"semseg": 7})
    with pytest.raises(EdgeMoEError, match="has no labels for task 'depth': it has semseg"):
        open_split(tmp_path, {"depth": 1})
    save_text(tmp_path / "images/notes.md", "")
    save_text(tmp_path / "images/._picture 1.jpg", "of a Mac")
    assert len(open_split(tmp_path, {"semseg": 3})) == 4
    assert caplog.messages == [
        f"folder '{tmp_path}/images': 1 of 6 files are no pictures and are skipped: notes.md."
    ]
    save_png(tmp_path / "images/picture 1.png", colors(SIZE))
    with pytest.raises(EdgeMoEError, match=r"1\.jpg' and 'picture 1\.png' have the same name"):
        open_split(tmp_path, {"semseg": 3})
    (tmp_path / "images/picture 1.png").unlink()
    (tmp_path / "masks/picture 1.png").unlink()
    with pytest.raises(EdgeMoEError, match=r"semseg label '.*masks/picture 1\.png' of the \w+ split"):
        [open_split(tmp_path, {"semseg": 3}, split) for split in ("train", "val")]


def test_a_rotated_photograph_needs_a_word(tmp_path: Path) -> None:
    text = f'tasks.semseg = {{folder = "masks", {NAMES}}}'
    exif = Image.Exif()
    exif[0x0112] = 6
    make(tmp_path, text)
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(colors(SIZE)).save(path, exif=exif)
    with pytest.raises(EdgeMoEError, match=r"has an EXIF rotation: say in dataset\.toml how its labels lie"):
        first(tmp_path, "semseg", 3)
    save_text(tmp_path / "dataset.toml", f'rotation = "stored"\n{text}')
    assert open_split(tmp_path, {"semseg": 3})[0]["image"].shape[:2] == SIZE
    save_text(tmp_path / "dataset.toml", f'rotation = "upright"\n{text}')
    store(tmp_path, "masks", np.rot90(LABELS, 3).copy())
    assert open_split(tmp_path, {"semseg": 3})[0]["image"].shape[:2] == SIZE[::-1]


# Pictures without labels


def test_pictures_without_labels(tmp_path: Path) -> None:
    make(tmp_path, "")
    spec = f"images:{tmp_path}/images"
    data = open_dataset(spec, "train", {"semseg": 3}, SIZE, 0, 0, unlabelled=True)
    assert (len(data), list(data[0]), data.tasks, data.image_id(0)) == (5, ["image"], {}, "picture 0")
    save_png(tmp_path / "images/picture 0.png", colors(SIZE))
    data = open_dataset(spec, "train", {}, SIZE, 0, 0, unlabelled=True)
    assert [data.image_id(index) for index in range(2)] == ["picture 0_jpg", "picture 0_png"]
    with pytest.raises(EdgeMoEError, match=r"have no labels: they serve 'quantise', 'export' and 'show'"):
        open_dataset(spec, "train", {"semseg": 3}, SIZE, 0, 0)
    with pytest.raises(EdgeMoEError, match="has no pictures"):
        open_dataset(f"images:{tmp_path}", "train", {}, SIZE, 0, 0, unlabelled=True)


# Data sets of other packages


MODULE = """
from edge_moe.data.folder import FolderDataset

class Orchard(FolderDataset):
    pass

class Other:
    def __init__(self, root, split, tasks): pass
"""


def test_a_class_in_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "data", f'tasks.semseg = {{folder = "masks", {NAMES}}}')
    save_text(tmp_path / "own_orchard.py", MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    open_own = lambda spec: open_dataset(spec, "train", {"semseg": 3}, SIZE, 0, 0)  # noqa: E731
    assert len(open_own("own_orchard:Orchard:data")) == 4
    for spec, message in (
        ("own_orchard:Nothing:data", "has no attribute 'Nothing'"),
        ("own_nothing:Orchard:data", "cannot load 'own_nothing:Orchard' .*: No module named 'own_nothing'"),
        ("own_orchard:Other:data", "made a Other, which is no TaskDataset"),
        ("own_orchard:Orchard:none", "'none' of 'own_orchard:Orchard:none' does not exist"),
        ("own_orchard:Orchard", "unknown data specification .* MODULE:CLASS:DIR"),
        ("orchard", "unknown data specification 'orchard': known are scenes, folder:DIR"),
    ):
        with pytest.raises(EdgeMoEError, match=message):
            open_own(spec)


def test_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, f'tasks.semseg = {{folder = "masks", {NAMES}}}')
    point = metadata.EntryPoint("orchard", "edge_moe.data.folder:FolderDataset", "edge_moe.datasets")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == point.group else [])
    split: Split = "train"
    assert len(open_dataset(f"orchard:{tmp_path}", split, {"semseg": 3}, SIZE, 0, 0)) == 4
    with pytest.raises(EdgeMoEError, match="orchard:DIR"):
        open_dataset("plum", split, {}, SIZE, 0, 0)
