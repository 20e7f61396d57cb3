"""Datasets of a simulated camera from a folder of photographs: `python -m data.simulate`."""

import filecmp
import json
import re
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from data import cuts as writer
from data import simulate, unprocess
from data.cuts import SPLITS
from data.unprocess import Camera
from errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two small photographs, each a gradient with texture."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        ramp = np.linspace(20, 200, 96)[None, :, None] * np.ones((64, 1, 3))
        iio.imwrite(folder / name, (ramp + rng.uniform(0, 50, (64, 96, 3))).astype(np.uint8))
    return folder


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "data.simulate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def make(photos: Path, out: Path, **options) -> Path:
    simulate.simulate(str(photos), out, patch=16, val=2, test=2, **options)
    return out


def files(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def test_whole_photographs_are_in_one_split():
    shapes = {f"{i}.png": (64, 64) for i in range(8)}
    cuts = simulate.split(shapes, 16, 16, (1.0, 0.5), 20, 20, np.random.default_rng(0))
    names = {side: {cut[1] for cut in cuts if cut[0] == side} for side in SPLITS}
    assert len(set.union(*names.values())) == sum(map(len, names.values())) == 8
    assert [sum(cut[0] == side for cut in cuts) for side in SPLITS] == [6 * 20, 20, 20]


def test_the_command_writes_a_dataset_and_refuses_to_overwrite_it(photos, tmp_path):
    root = tmp_path / "new" / "set"
    done = run(photos, root, "--patch", 16, "--val", 2, "--test", 3, "--cfa", "bggr")
    assert done.returncode == 0, done.stderr
    assert [len(list((root / side / "fujifilm").iterdir())) for side in SPLITS] == [43, 2, 3]
    raw = iio.imread(root / "train" / "mediatek_raw" / "0.png")
    assert raw.shape == (16, 16) and raw.dtype == np.uint16 and raw.max() <= 1023
    truth = iio.imread(root / "train" / "fujifilm" / "0.png")
    assert truth.shape == (16, 16, 3) and truth.dtype == np.uint8
    record = json.loads((root / "camera.json").read_text())
    assert record["camera"]["cfa"] == "bggr" and record["counts"] == {"train": 43, "val": 2, "test": 3}
    assert "a.png" in (root / "sources.txt").read_text()
    assert not list(root.parent.glob("*.partial"))
    again = run(photos, root, "--patch", 16)
    assert again.returncode == 2 and again.stderr.startswith("error: ") and "exists" in again.stderr


def test_the_word_demo_makes_the_demo_dataset(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(simulate, "make_demo", lambda *arguments, **options: calls.append((arguments, options)))
    simulate.simulate("demo", tmp_path / "out", seed=3, shot=0.0)
    camera = dict(matrix=None, shot=0.0, cfa="rggb", black=(58, 60, 61, 62), white=1023)
    assert calls == [((tmp_path / "out", 128, 3), camera)]
    for option in (dict(stride=8), dict(scales=(0.5,)), dict(val=1), dict(test=1)):
        with pytest.raises(UserError, match="leave these options out"):
            simulate.simulate("demo", tmp_path / "out", **option)


def test_equal_seeds_write_equal_files_and_other_seeds_other_mosaics(photos, tmp_path):
    one, same, other = (make(photos, tmp_path / n, seed=s) for n, s in (("one", 1), ("same", 1), ("other", 2)))
    assert files(one) == files(same) == files(other)
    assert filecmp.cmpfiles(one, same, files(one), shallow=False)[0] == files(one)
    raw = [path for path in files(one) if "mediatek_raw" in path.parts]
    assert filecmp.cmpfiles(one, other, raw, shallow=False)[0] == []


def test_each_mosaic_belongs_to_its_ground_truth(photos, tmp_path):
    root, camera = make(photos, tmp_path / "out", shot=0.0), Camera.random(0, shot=0.0)
    for path in (root / "val" / "fujifilm").iterdir():
        linear = unprocess.unprocess(iio.imread(path), camera)
        raw = iio.imread(root / "val" / "mediatek_raw" / path.name)
        np.testing.assert_array_equal(raw, unprocess.expose(linear, camera, np.random.default_rng(0)))


def test_unusable_images_are_skipped_and_counted(photos, tmp_path, capsys):
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:900])
    (photos / "text.png").write_text("no image")
    iio.imwrite(photos / "small.png", np.zeros((8, 99, 3), np.uint8))
    make(photos, tmp_path / "out")
    (photos / "notes.txt").write_text("no image")
    make(photos, tmp_path / "out2")
    sentence = r"note: skipped 2 unreadable .the first: cannot read .*cut.jpg.*, 1 smaller than 16 x 16 .*small.png."
    first, second = re.findall(f"{sentence}.*", capsys.readouterr().err)
    assert second == f"{first}, 1 of other formats (the first: notes.txt)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(photos="absent"), "not a folder"),
        (dict(photos="."), "holds no image"),
        (dict(patch=65), "even"),
        (dict(patch=128), "no usable image: 2 smaller"),
        (dict(patch=64), "no patch for training"),
        (dict(scales=(2.0,)), "scales"),
        (dict(matrix=4), "0 to 3"),
        (dict(shot=-1.0), "negative"),
        (dict(white=60), "white"),
        (dict(seed=-1), "seed"),
        (dict(stride=-1), "stride"),
        (dict(out=Path("photos")), "exists"),
        (dict(out=Path("photos/a.png/x")), "cannot create"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(photos, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    folder = {"absent": "absent", ".": "empty"}.get(options.get("photos"), "photos")
    with pytest.raises(UserError, match=message):
        simulate.simulate(**{"out": Path("out"), "patch": 16, **options, "photos": folder})
    assert not Path("out").exists() and not list(tmp_path.glob("*.partial"))


def test_an_interrupted_run_leaves_nothing(photos, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_png", full_disk)
    with pytest.raises(OSError, match="No space"):
        make(photos, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "photos"]
