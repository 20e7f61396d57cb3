"""The simulated camera: every stage against its inverse or a value worked out by hand, and the datasets it writes."""

import filecmp
import json
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from data import simulate, unprocess
from data.simulate import DEMO, SPLITS
from data.unprocess import Camera
from errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUIET = Camera.random(0, shot=0.0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(8, 6, 3))


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


def test_tone_curve_and_gamma_invert(image):
    assert unprocess.smoothstep(0.25) == pytest.approx(3 / 16 - 2 / 64)
    np.testing.assert_allclose(unprocess.smoothstep(unprocess.inverse_smoothstep(image)), image, atol=1e-12)
    np.testing.assert_allclose(unprocess.inverse_smoothstep(unprocess.smoothstep(image)), image, atol=1e-12)
    np.testing.assert_allclose(unprocess.gamma_compress(unprocess.gamma_expand(image)), image, atol=1e-12)


def test_colour_matrix_keeps_grey_and_inverts(image):
    np.testing.assert_allclose(unprocess.apply_matrix(np.full((1, 1, 3), 0.3), QUIET.rgb2cam), 0.3)
    camera = unprocess.apply_matrix(image, QUIET.rgb2cam)
    np.testing.assert_allclose(unprocess.apply_matrix(camera, np.linalg.inv(QUIET.rgb2cam)), image, atol=1e-12)


def test_gains_invert_below_the_highlights_and_keep_white(image):
    dark = image * 0.9
    np.testing.assert_allclose(unprocess.apply_gains(unprocess.safe_invert_gains(dark, QUIET), QUIET), dark, atol=1e-12)
    np.testing.assert_allclose(unprocess.safe_invert_gains(np.ones((1, 1, 3)), QUIET), 1)


def test_unprocess_is_undone_by_the_forward_pipeline(image):
    photo = 0.3 + 0.3 * image  # inside the gamut of the camera: nothing is clipped
    linear = unprocess.unprocess(photo, QUIET)
    back = unprocess.apply_matrix(unprocess.apply_gains(linear, QUIET), np.linalg.inv(QUIET.rgb2cam))
    np.testing.assert_allclose(unprocess.smoothstep(unprocess.gamma_compress(back)), photo, atol=1e-9)


@pytest.mark.parametrize(
    ("cfa", "raw", "black"),
    [
        ("rggb", [[100, 201, 102, 203], [210, 311, 212, 313]], [[58, 60], [61, 62]]),
        ("bggr", [[300, 201, 302, 203], [210, 111, 212, 113]], [[62, 61], [60, 58]]),
        ("grbg", [[200, 101, 202, 103], [310, 211, 312, 213]], [[60, 58], [62, 61]]),
        ("gbrg", [[200, 301, 202, 303], [110, 211, 112, 213]], [[61, 62], [58, 60]]),
    ],
)
def test_mosaic_and_black_levels_by_hand(cfa, raw, black):
    # Hundreds: 1 red, 2 green, 3 blue; tens: row; ones: column.
    image = np.array([[[100 * c + 10 * y + x for c in (1, 2, 3)] for x in range(4)] for y in range(2)])
    assert unprocess.mosaic(image, cfa).tolist() == raw
    assert unprocess.black_levels(Camera.random(0, cfa=cfa)).tolist() == black


@pytest.mark.parametrize("white", [1023, 16383])
def test_black_and_white_are_exact_without_noise(white):
    camera, rng = Camera.random(0, shot=0.0, white=white), np.random.default_rng(0)
    black = unprocess.expose(unprocess.unprocess(np.zeros((4, 4, 3), np.uint8), camera), camera, rng)
    assert black.dtype == np.uint16
    np.testing.assert_array_equal(black, np.tile([[58, 60], [61, 62]], (2, 2)))
    full = unprocess.expose(unprocess.unprocess(np.full((4, 4, 3), 255, np.uint8), camera), camera, rng)
    np.testing.assert_array_equal(full, white)


def test_quantise_rounds_and_clips():
    raw = np.array([[0.5, -1.0], [2.0, 1e-4]])
    assert unprocess.quantise(raw, QUIET).tolist() == [[540, 0], [1023, 62]]  # 58 + 965 / 2 = 540.5, to even


def test_noise_has_the_variance_of_the_model():
    noise = unprocess.add_noise(np.full((500, 500), 0.25), 4e-3, 1e-3, np.random.default_rng(0)) - 0.25
    assert noise.var() == pytest.approx(4e-3 * 0.25 + 1e-3, rel=0.02)
    assert abs(noise.mean()) < 3e-4


def test_camera_is_drawn_from_the_seed_within_the_published_ranges():
    assert Camera.random(3) == Camera.random(3) != Camera.random(4)
    camera = Camera.random(3)
    np.testing.assert_allclose(np.sum(camera.rgb2cam, axis=1), 1)
    assert 1.9 <= camera.red_gain <= 2.4 and 1.5 <= camera.blue_gain <= 1.9 and 1e-5 <= camera.shot <= 1e-4
    assert Camera.random(0, matrix=2).rgb2cam == Camera.random(1, matrix=2).rgb2cam != camera.rgb2cam


def test_whole_photographs_go_to_one_split():
    shapes = {f"{i}.png": (64, 64) for i in range(8)}
    cuts = simulate.split(shapes, 16, 16, (1.0, 0.5), 20, 20, np.random.default_rng(0))
    names = {side: {cut[1] for cut in cuts if cut[0] == side} for side in SPLITS}
    assert len(set.union(*names.values())) == sum(map(len, names.values())) == 8
    assert [sum(cut[0] == side for cut in cuts) for side in SPLITS] == [6 * 20, 20, 20]


def test_command_end_to_end(photos, tmp_path):
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


def test_same_seed_same_files_other_seed_other_files(photos, tmp_path):
    one, same, other = (make(photos, tmp_path / n, seed=s) for n, s in (("one", 1), ("same", 1), ("other", 2)))
    assert files(one) == files(same) == files(other)
    assert filecmp.cmpfiles(one, same, files(one), shallow=False)[0] == files(one)
    raw = [path for path in files(one) if "mediatek_raw" in path.parts]
    assert filecmp.cmpfiles(one, other, raw, shallow=False)[0] == []


def test_raw_belongs_to_its_truth(photos, tmp_path):
    root = make(photos, tmp_path / "out", shot=0.0)
    for path in (root / "val" / "fujifilm").iterdir():
        linear = unprocess.unprocess(iio.imread(path), QUIET)
        raw = iio.imread(root / "val" / "mediatek_raw" / path.name)
        np.testing.assert_array_equal(raw, unprocess.expose(linear, QUIET, np.random.default_rng(0)))


def test_unusable_images_are_skipped_and_counted(photos, tmp_path, capsys):
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:900])
    (photos / "text.png").write_text("no image")
    iio.imwrite(photos / "small.png", np.zeros((8, 99, 3), np.uint8))
    make(photos, tmp_path / "out")
    sentence = "skipped 2 unreadable (such as cut.jpg), 1 smaller than 16 x 16 (such as small.png)"
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
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
        (dict(out=Path("photos/a.png/x")), "cannot make"),
    ],
)
def test_mistakes_are_told_in_a_sentence(photos, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    where = {"absent": "absent", ".": "empty"}.get(options.get("photos"), "photos")
    with pytest.raises(UserError, match=sentence):
        simulate.simulate(**{"out": Path("out"), "patch": 16, **options, "photos": where})
    assert not Path("out").exists() and not list(tmp_path.glob("*.partial"))


def test_a_broken_off_run_leaves_nothing_and_a_killed_one_is_swept_up(photos, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(simulate, "write_png", full_disk)
        with pytest.raises(OSError, match="No space"):
            make(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    (tmp_path / "out.partial" / "train").mkdir(parents=True)
    make(photos, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_demo_is_complete(tmp_path):
    root = tmp_path / "demo"
    simulate.make_demo(root)
    counts = json.loads((root / "camera.json").read_text())["counts"]
    assert counts == {"train": 272, "val": 24, "test": 24}
    for side in SPLITS:
        for kind, shape, dtype in (("mediatek_raw", (128, 128), np.uint16), ("fujifilm", (128, 128, 3), np.uint8)):
            assert {path.name for path in (root / side / kind).iterdir()} == {f"{i}.png" for i in range(counts[side])}
            for path in (root / side / kind).iterdir():
                image = iio.imread(path)
                assert image.shape == shape and image.dtype == dtype and image.min() < image.max()
    rows = [line.split("\t") for line in (root / "sources.txt").read_text().splitlines()]
    assert sorted((name, side) for side, name, _ in rows) == sorted((name, row[0]) for name, row in DEMO.items())
    assert {name for side, name, _ in rows if side == "val"} == {"coffee.png"}

    before = (root / "val" / "fujifilm" / "0.png").stat().st_mtime_ns
    simulate.make_demo(root)
    assert (root / "val" / "fujifilm" / "0.png").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="exists"):
        simulate.make_demo(root, seed=1)
    (root / "val" / "fujifilm" / "0.png").unlink()
    with pytest.raises(UserError, match="exists"):
        simulate.make_demo(root)


def test_demo_photographs_ship_with_the_wheel():
    from importlib.metadata import files as recorded

    record = {str(path) for path in recorded("scikit-image")}
    assert all(f"skimage/data/{name}" in record for name in DEMO)
    assert all(photo.dtype == np.uint8 and photo.shape[2] == 3 for photo in simulate.demo_photographs().values())
