"""test_model.py with mappers: tables in both directions beside other maps, pictures, and options that are refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import develop
import export
import storage
import test_model as script
from config import load, to_dict
from data import camera
from data.two_cameras import OTHER
from evaluation.raw_measures import psnr
from evaluation.tables import read_table
from tasks import raw_testing
from tasks.camera_maps import fit_maps
from tasks.cameras import find_profiles, open_two_cameras
from tasks.mapping import open_mapper
from tasks.raw_testing import draw

MAPS = ["step_0000002", "identity", "transport", "statistics", "profiles"]
CPU = torch.device("cpu")


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}", "--device=cpu"


def checkpoint(run: Path, step: int = 2) -> Path:
    return run / "checkpoints" / f"step_{step:07d}.pt"


def compared(folder: Path) -> dict[str, dict[str, float]]:
    """The rows of a compare.csv."""
    lines = [line for line in (folder / "compare.csv").read_text().splitlines() if not line.startswith("#")]
    heading, *rows = (line.split(",") for line in lines)
    return {row[0]: dict(zip(heading[1:], map(float, row[1:]), strict=True)) for row in rows}


@pytest.fixture
def quick(monkeypatch):
    """Only the maps that are fitted in no time, where the maps do not matter."""
    monkeypatch.setattr(raw_testing, "METHODS", ("identity", "transport"))


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_mapper_is_scored_beside_maps_that_need_no_training(raw2raw_run, call):
    status, output = call(script, *options(raw2raw_run))
    assert status == 0, output
    folder = raw2raw_run / "test"
    rows = [line.split() for line in output.splitlines()]
    directions = [row[:3] for row in rows if row[1:2] in (["a->b"], ["b->a"])]
    assert directions == [[name, way, "2"] for name in MAPS for way in ("a->b", "b->a")]
    assert ["map", "direction", "files", "PSNR", "(dB)", "SSIM", "MAE", "KL", "divergence"] in rows
    assert list(compared(folder)) == MAPS and f"tables: {folder}\npictures: {folder / 'pictures.png'}" in output
    table = read_table(folder / "step_0000002" / "metrics.csv")
    assert set(table.rows) == {"0.png", "1.png"} and table.header["map"] == "step_0000002"
    digest = storage.sha256_of(checkpoint(raw2raw_run))[:12]
    assert f"sha256 {digest}, mapper-plain, 1,732,720 parameters" in table.header["checkpoint step_0000002"]


def test_scores_are_those_of_the_maps(raw2raw_run, call):
    """Computed pair by pair from the opened checkpoint and from maps that the training code fits."""
    assert call(script, *options(raw2raw_run))[0] == 0
    config = load(raw2raw_run / "config.json")
    cameras, mapper = open_two_cameras(config), open_mapper(str(checkpoint(raw2raw_run)), CPU)
    fitted = {name: fit_maps(name, cameras, find_profiles(config)) for name in MAPS[2:]}
    maps = {name: lambda planes, to, ways=ways: ways[to](planes) for name, ways in fitted.items()}
    maps |= {"step_0000002": mapper.map, "identity": lambda planes, to: planes}
    found = compared(raw2raw_run / "test")
    for name, mapping in maps.items():
        for each in ("a", "b"):
            pairs = [cameras.pair(pair) for pair in cameras.pairs if pair.camera == each]
            scores = [psnr(mapping(source, OTHER[each]), truth).item() for source, truth in pairs]
            assert found[name][f"psnr_{each}{OTHER[each]}"] == pytest.approx(np.mean(scores), abs=1e-5), name
    assert found["transport"]["psnr"] > found["identity"]["psnr"] + 1


@pytest.mark.usefixtures("quick")
def test_pictures_show_source_mapped_and_truth_of_both_directions(raw2raw_run, raw2raw_cameras, call):
    assert call(script, *options(raw2raw_run))[0] == 0
    picture = iio.imread(raw2raw_run / "test" / "pictures.png")
    assert picture.shape == (
        8 * 32 + 7 * 4,
        3 * 32 + 2 * 4,
        3,
    )  # rows, with errors below, and gaps of planes of 32 pixels
    cameras = open_two_cameras(load(raw2raw_run / "config.json"))
    truths = {to: cameras.pairs[0 if to == "b" else 2] for to in ("a", "b")}
    exact = draw(cameras, lambda planes, to: cameras.pair(truths[to])[1], CPU)
    first, last = exact[:32, 36:68], exact[:32, 72:]
    assert np.array_equal(first, last) and not np.array_equal(first, picture[:32, 36:68])
    error, exact_error = picture[36:68, 36:68], exact[36:68, 36:68]
    assert exact_error.max() == 0 and error.max() > 0
    assert np.array_equal(exact[:, :32], picture[:, :32]) and np.array_equal(exact[:, 72:], picture[:, 72:])


def test_without_colour_matrices_there_is_no_row_of_profiles(raw2raw_run, raw2raw_cameras, call, tmp_path):
    root = shutil.copytree(raw2raw_cameras, tmp_path / "data")
    profile = replace(camera.load(root / "a.json"), color_matrix=None)
    storage.write_json(root / "a.json", camera.to_dict(profile))
    assert call(script, *options(raw2raw_run), f"--data-root={root}")[0] == 0
    assert list(compared(raw2raw_run / "test")) == MAPS[:-1]


@pytest.mark.usefixtures("quick")
def test_named_measures_are_the_columns(raw2raw_run, call):
    status, output = call(script, *options(raw2raw_run), "--measures", "angle", "mae_ba", "--step", "1")
    assert status == 0 and "Angle of mean colours (degrees)" in output
    found = compared(raw2raw_run / "test")
    assert list(found["step_0000001"]) == ["angle", "angle_ab", "angle_ba", "mae_ba"]


@pytest.mark.usefixtures("quick")
def test_the_encoder_can_see_smaller_planes(raw2raw_run, call):
    assert call(script, *options(raw2raw_run))[0] == 0
    plain = compared(raw2raw_run / "test")
    assert call(script, *options(raw2raw_run), "--downsample", "2")[0] == 0
    smaller = compared(raw2raw_run / "test")
    assert smaller["step_0000002"] != plain["step_0000002"] and smaller["transport"] == plain["transport"]
    assert "downsample" in read_table(raw2raw_run / "test" / "step_0000002" / "metrics.csv").header
    status, output = call(script, *options(raw2raw_run), "--downsample", "16")
    assert status == 2 and "downsamples them by 16" in output


@pytest.mark.usefixtures("quick")
def test_other_mappers_are_compared_on_the_same_pairs(raw2raw_run, call):
    other = shutil.copytree(raw2raw_run, raw2raw_run.with_name("other"))
    sources = ["other", str(checkpoint(other, 1))]
    status, output = call(script, *options(raw2raw_run), "--compare", *sources)
    assert status == 0, output
    found = compared(raw2raw_run / "test")
    assert list(found) == [
        "step_0000002",
        "other_step_0000002",
        "other_step_0000001",
        "identity",
        "transport",
        "profiles",
    ]
    assert found["other_step_0000002"] == found["step_0000002"] != found["other_step_0000001"]
    status, output = call(script, *options(raw2raw_run), "--compare", "other", str(checkpoint(other)))
    assert status == 2 and "two of the mappers are called other_step_0000002" in output


# --- which checkpoint, which data ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_in_a_run_is_tested_on_the_data_of_its_run(raw2raw_run, call):
    assert call(script, "--checkpoint", checkpoint(raw2raw_run, 1), "--device=cpu")[0] == 0
    assert list(compared(raw2raw_run / "test"))[0] == "step_0000001"


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_elsewhere_needs_an_output(raw2raw_run, raw2raw_cameras, call, tmp_path):
    file = Path(shutil.copy(checkpoint(raw2raw_run), tmp_path / "mine.pt"))
    status, output = call(script, "--checkpoint", file, "--device=cpu")
    assert status == 2 and "lies in the checkpoints/ of no run: say with --output" in output
    out, moved = tmp_path / "out", shutil.copytree(raw2raw_cameras, tmp_path / "moved")
    done = call(script, "--checkpoint", file, "--device=cpu", "--output", out, "--data-root", moved)
    assert done[0] == 0 and str(moved) in done[1] and list(compared(out))[0] == "mine"
    assert (out / "pictures.png").is_file()


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_of_another_run_keeps_that_run_s_name(raw2raw_run, call):
    other = shutil.copytree(raw2raw_run, raw2raw_run.with_name("other"))
    assert call(script, *options(raw2raw_run), "--checkpoint", checkpoint(other))[0] == 0
    assert list(compared(raw2raw_run / "test"))[0] == "other_step_0000002"


@pytest.mark.usefixtures("quick")
def test_files_of_somebody_else_are_not_replaced(raw2raw_run, call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.csv").write_text("mine")
    status, output = call(script, *options(raw2raw_run), "--output", out)
    assert status == 2 and "compare.csv would be overwritten" in output and (out / "compare.csv").read_text() == "mine"
    assert [path.name for path in out.iterdir()] == ["compare.csv"]
    (out / "compare.csv").unlink()
    assert call(script, *options(raw2raw_run), "--output", out)[0] == 0
    assert call(script, *options(raw2raw_run), "--output", out)[0] == 0  # its own files are replaced


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("--split", "test"), "--split has no effect on a raw-to-raw mapper"),
        (("--format", "jpg"), "--format has no effect on a raw-to-raw mapper"),
        (("--weights", "random"), "--weights has no effect on a raw-to-raw mapper"),
        (("--input", "x", "--output", "y"), "--input has no effect on a raw-to-raw mapper; map_raw.py maps files"),
        (("--downsample", "0"), "--downsample must be at least 1, but is 0"),
        (("--protocol", "paper"), "protocol 'paper' scores photographs"),
        (("--measures", "lpips"), "protocol 'raw2raw' has no measure 'lpips'"),
        (("--step", "7"), "has no checkpoint of step 7"),
        (("--checkpoint", "absent.pt"), "no file absent.pt"),
        (("--compare", "absent.pt"), "no file absent.pt"),
        (("--data-root", "absent"), "no folder absent"),
    ),
)
def test_a_mistake_ends_with_a_sentence(raw2raw_run, call, arguments, message):
    status, output = call(script, *options(raw2raw_run), *arguments)
    assert status == 2 and message in output and "Traceback" not in output
    assert not (raw2raw_run / "test").exists()


def test_checkpoint_and_run_must_be_of_one_task(raw2raw_run, make_run, call):
    isp = make_run(count=1)
    status, output = call(script, *options(isp), "--checkpoint", checkpoint(raw2raw_run))
    assert status == 2 and "is a raw-to-raw mapper, but the run tiny trains an ISP: name a run" in output
    status, output = call(script, *options(raw2raw_run), "--checkpoint", isp / "checkpoints" / "step_0000010.pt")
    assert status == 2 and "is an ISP, but the run raw trains a raw-to-raw mapper" in output
    status, output = call(script, *options(isp), "--downsample", "2")
    assert status == 2 and "--downsample has no effect on an ISP" in output
    status, output = call(script, *options(isp), "--split", "val", "--compare", checkpoint(raw2raw_run))
    assert status == 2 and "is a raw-to-raw mapper, not an ISP: see map_raw.py" in output
    status, output = call(script, *options(raw2raw_run), "--compare", isp / "checkpoints" / "step_0000010.pt")
    assert status == 2 and "is an ISP, not a raw-to-raw mapper" in output


def test_a_map_s_name_is_no_name_of_a_checkpoint(raw2raw_run, call, tmp_path):
    file = Path(shutil.copy(checkpoint(raw2raw_run), tmp_path / "identity.pt"))
    status, output = call(script, *options(raw2raw_run), "--checkpoint", file)
    assert status == 2 and "a checkpoint is called identity, as a map that it is compared with" in output


def test_a_run_without_pairs_is_told_what_to_do(raw2raw_run, raw2raw_cameras, call, tmp_path):
    alone = shutil.copytree(raw2raw_cameras, tmp_path / "alone", ignore=shutil.ignore_patterns("paired", "truth"))
    status, output = call(script, *options(raw2raw_run), f"--data-root={alone}")
    assert status == 2 and "no pairs, of the same scenes: nothing can be scored. Look at the pictures" in output


@pytest.mark.parametrize("by_run", (True, False))
@pytest.mark.parametrize("command", (develop, export))
def test_isp_commands_name_the_right_command(raw2raw_run, raw2raw_cameras, call, tmp_path, command, by_run):
    mosaics = (raw2raw_cameras / "paired" / "a",) if command is develop else ()
    source = options(raw2raw_run)[:2] if by_run else ("--checkpoint", checkpoint(raw2raw_run))
    status, output = call(command, *mosaics, "-o", tmp_path / "out", *source)
    assert status == 2 and "is a raw-to-raw mapper, not an ISP: see map_raw.py" in output
    assert not (tmp_path / "out").exists() and "Traceback" not in output


def test_an_isp_run_is_tested_as_before(make_run, call):
    """Also with a config.json that was written before there was a second task."""
    isp = make_run(count=1)
    config = to_dict(load(isp / "config.json"))
    for name in ("task", "mapping", "data_b"):
        del config[name]
    storage.write_json(isp / "config.json", config)
    status, output = call(script, *options(isp), "--split", "val", "--measures", "psnr")
    assert status == 0 and "demosaiced" in output and (isp / "test" / "compare.csv").is_file()
