"""The demo dataset."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from data.cuts import SPLITS
from data.demo import DEMO, demo_photographs, main, make_demo
from data.unprocess import Camera, mosaic, quantise, unprocess
from errors import UserError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "demo"
    make_demo(root)
    return root


def test_the_demo_is_complete(demo):
    counts = json.loads((demo / "camera.json").read_text())["counts"]
    assert counts == {"train": 272, "val": 24, "test": 24}
    for side in SPLITS:
        for folder, shape, dtype in (("mediatek_raw", (128, 128), np.uint16), ("fujifilm", (128, 128, 3), np.uint8)):
            assert {path.name for path in (demo / side / folder).iterdir()} == {f"{i}.png" for i in range(counts[side])}
            for path in (demo / side / folder).iterdir():
                image = iio.imread(path)
                assert image.shape == shape and image.dtype == dtype and image.min() < image.max()


def test_every_photograph_is_listed_with_its_split_and_licence(demo):
    rows = [line.split("\t") for line in (demo / "sources.txt").read_text().splitlines()]
    assert sorted((name, side, licence) for side, name, licence in rows) == sorted(
        (name, side, licence) for name, (side, _, licence) in DEMO.items()
    )
    assert {name for side, name, _ in rows if side == "val"} == {"coffee.png"}


def test_a_complete_demo_is_kept_and_any_other_folder_refused(demo):
    photo = demo / "val" / "fujifilm" / "0.png"
    before = photo.stat().st_mtime_ns
    make_demo(demo)
    assert photo.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="exists"):
        make_demo(demo, seed=1)
    content = photo.read_bytes()
    photo.unlink()
    with pytest.raises(UserError, match="exists"):
        make_demo(demo)
    photo.write_bytes(content)


def test_a_patch_that_is_too_large_is_refused(tmp_path):
    with pytest.raises(UserError, match="patch 512 is too large"):
        make_demo(tmp_path / "demo", patch=512)


def test_the_photographs_are_part_of_the_wheel():
    from importlib.metadata import files as recorded

    record = {str(path) for path in recorded("scikit-image")}
    assert all(f"skimage/data/{name}" in record for name in DEMO)
    assert all(photo.dtype == np.uint8 and photo.shape[2] == 3 for photo in demo_photographs().values())


def test_whole_mosaics_are_of_photographs_that_are_not_trained_on(tmp_path, capsys):
    main([str(tmp_path / "whole")])
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "whole" / f"{name}.png") for name in ("chelsea", "coffee")
    ]
    camera, photo = Camera.random(0), demo_photographs()["coffee.png"]
    found = iio.imread(tmp_path / "whole" / "coffee.png")
    clean = quantise(mosaic(unprocess(photo, camera), camera.cfa), camera)
    assert found.dtype == np.uint16 and found.shape == clean.shape == (400, 600)
    error = found.astype(float) - clean
    assert abs(error.mean()) < 1 and 1 < error.std() < 0.05 * camera.white  # its noise
