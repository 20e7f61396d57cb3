"""test_model.py on what has no pairs: a run's own mosaics, a single file, and the test files of a challenge."""

import shutil
import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import test_model as script
from evaluation.tables import read_table
from tasks.data import SHOWN


def written(folder: Path) -> set[str]:
    """The names of the files in a folder, without hidden ones."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


# --- a run without pairs ---------------------------------------------------------------------------------------------


@pytest.fixture
def lonely_run(make_run, tmp_path) -> Path:
    """A run on four mosaics and photographs of other scenes."""
    root = tmp_path / "data" / "train"
    folders = {"raw": str(root / "mediatek_raw"), "photos": str(root / "fujifilm")}
    return make_run(count=1, layout="folders", root="", pairs="no", **folders)


def options(run: Path) -> tuple:
    return f"--run={run.name}", f"--runs={run.parent}", "--step=10"


def test_a_run_without_pairs_shows_its_own_mosaics(lonely_run, call):
    status, output = call(script, *options(lonely_run))
    assert status == 0 and "has no pairs: 4 of its 4 mosaics are rendered, and nothing is scored" in output
    assert written(lonely_run / "test" / "step_0000010") == {f"{name}.png" for name in range(4)}
    page = (lonely_run / "report.html").read_text()
    assert page.count('<article class="scene"') == 4 and 'data-picture="target"' not in page
    assert not list(lonely_run.rglob("*.csv"))


def test_of_many_mosaics_some_are_shown_evenly_spaced(lonely_run, call, tmp_path):
    folder = tmp_path / "data" / "train" / "mediatek_raw"
    for name in range(4, 2 * SHOWN + 1):
        shutil.copy(folder / "0.png", folder / f"{name}.png")
    assert call(script, *options(lonely_run))[0] == 0
    expected = {f"{name}.png" for name in range(0, 2 * SHOWN + 1, 3)}
    assert written(lonely_run / "test" / "step_0000010") == expected and len(expected) <= SHOWN
    page = (lonely_run / "report.html").read_text()
    shown = [name for name in range(2 * SHOWN + 1) if f"<h3>{name}.png" in page]
    assert len(shown) > 4 and len(set(np.diff(shown))) == 1 and shown[-1] > SHOWN  # evenly spaced, too


def test_the_model_of_a_run_without_pairs_can_be_compared(lonely_run, call, make_files):
    weights, _, _ = make_files()
    status, output = call(script, *options(lonely_run), "--compare", weights)
    assert status == 0, output
    assert written(lonely_run / "test") == {"step_0000010", "weights"}


@pytest.mark.parametrize("scoring", ("--measures=psnr", "--protocol=paper", "--weights=auto"))
def test_scores_without_pairs_are_refused(lonely_run, call, scoring):
    status, output = call(script, *options(lonely_run), scoring)
    assert status == 2 and "has no pairs: leave out --protocol, --measures" in output
    assert not (lonely_run / "test").exists()


# --- one file --------------------------------------------------------------------------------------------------------


def test_one_mosaic_is_rendered_and_scored(call, make_files, tmp_path):
    weights, raws, photos = make_files()
    files = ("--checkpoint", weights, "--input", raws / "1.png", "--output", tmp_path / "out")
    status, output = call(script, *files)
    assert status == 0 and written(tmp_path / "out") == {"1.png", "report.html"}, output
    assert call(script, "--checkpoint", weights, "--input", raws, "--output", tmp_path / "all")[0] == 0
    assert np.array_equal(iio.imread(tmp_path / "out" / "1.png"), iio.imread(tmp_path / "all" / "1.png"))
    (photos / "1.png").rename(photos / "photograph.png")
    assert call(script, *files, "--target", photos / "photograph.png", "--measures=psnr")[0] == 0
    assert read_table(tmp_path / "out" / "metrics.csv").rows.keys() == {"1.png"}


def test_a_file_that_is_no_mosaic_is_refused(call, make_files, tmp_path):
    weights, raws, _ = make_files()
    status, output = call(script, "--checkpoint", weights, "--input", weights, "--output", tmp_path / "out")
    assert status == 2 and "weights.pth is not a mosaic" in output and not (tmp_path / "out").exists()
    status, output = call(script, "--checkpoint", weights, "--input", raws / "0.png", "--output", raws)
    assert status == 2 and "holds the input files" in output


# --- a submission ----------------------------------------------------------------------------------------------------


@pytest.fixture
def challenge(make_run, tmp_path) -> tuple[Path, Path]:
    """(a run, a folder of two test files of different sizes as the challenge has them)."""
    raws, rng = tmp_path / "test1" / "raws", np.random.default_rng(0)
    raws.mkdir(parents=True)
    for name, (height, width) in {"12_3": (32, 48), "7": (24, 20)}.items():
        np.save(raws / f"{name}.npy", rng.integers(0, 1024, (height // 2, width // 2, 4)).astype(np.uint16))
    return make_run(count=1), raws


def submit(run: Path, raws: Path, output: Path, *more: str) -> tuple:
    return *options(run), "--input", raws, "--output", output, "--submission", "ntire26", *more


def test_a_submission_holds_a_jpeg_for_each_mosaic_and_the_readme(challenge, call, tmp_path):
    run, raws = challenge
    status, output = call(script, *submit(run, raws, tmp_path / "out"), "--description", "Our method")
    archive = tmp_path / "out" / "submission.zip"
    assert status == 0 and f"submission: {archive}, checked" in output, output
    with zipfile.ZipFile(archive) as parts:
        assert sorted(parts.namelist()) == ["12_3.jpg", "7.jpg", "readme.txt"]
        readme = parts.read("readme.txt").decode()
        sizes = {name: iio.imread(parts.read(name)).shape for name in ("12_3.jpg", "7.jpg")}
        assert parts.read("7.jpg") == (tmp_path / "out" / "7.jpg").read_bytes()
    assert sizes == {"12_3.jpg": (32, 48, 3), "7.jpg": (24, 20, 3)}
    runtime, device, extra, other = readme.splitlines()
    assert 0 < float(runtime.removeprefix("runtime per image [s] : ")) < 10
    assert (device, extra) == ("CPU[1] / GPU[0] : 1", "Extra Data [1] / No Extra Data [0] : 0")
    assert other.startswith("Other description : Our method. efficient, 3,060 parameters; PyTorch ")
    assert readme in output


def test_a_submission_can_be_made_again_but_replaces_no_file_of_the_user(challenge, call, tmp_path):
    run, raws = challenge
    out = tmp_path / "out"
    for _ in range(2):
        status, output = call(script, *submit(run, raws, out))
        assert status == 0, output
    other = tmp_path / "mine"
    other.mkdir()
    (other / "readme.txt").write_text("mine")
    status, output = call(script, *submit(run, raws, other))
    assert status == 2 and f"{other / 'readme.txt'} would be overwritten" in output
    assert written(other) == {"readme.txt"}


def test_extra_data_is_declared_by_the_user_and_for_released_models(challenge, make_files, call, tmp_path):
    run, raws = challenge
    assert call(script, *submit(run, raws, tmp_path / "out", "--extra-data"))[0] == 0
    assert "Extra Data [1] / No Extra Data [0] : 1" in (tmp_path / "out" / "readme.txt").read_text()
    weights, _, _ = make_files()
    files = ("--checkpoint", weights, "--input", raws, "--output", tmp_path / "released", "--submission", "ntire26")
    assert call(script, *files)[0] == 0
    assert "Extra Data [1] / No Extra Data [0] : 1" in (tmp_path / "released" / "readme.txt").read_text()
