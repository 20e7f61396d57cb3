"""The commands on a dataset in LSMI's form, with three channels: training, resuming, scores on charts, map_raw.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fit
import inference
import map_raw
import storage
import test_model as testing
from data.files import Reader
from data.planes import merge_greens, to_planes
from errors import UserError
from evaluation.tables import read_table
from tasks import raw_to_raw
from tasks.cameras import open_two_cameras
from tasks.raw_comparison import describe
from tasks.raw_scoring import columns_of, open_tables, score_maps

from .fit_runs import read_log, read_scores, same
from .lsmi_tree import edit, write_lsmi
from .mapper_runs import SmallCritic
from .test_fit_raw2raw import kill_at_step
from .test_resume import train
from .two_cameras import CAMERAS, SEEN

pytestmark = pytest.mark.usefixtures("restored_module")

CPU = torch.device("cpu")
OPTIONS = "--model mapper-plain --mapping.channels 3 --data.patch 64 --data.batch 2 --data.workers 0 --device cpu"
OPTIONS += " --mapping.steps 2 --mapping.lr 1e-3 --log.every 1 --log.val-every 2 --log.save-every 1"
OPTIONS += " --log.state-every 1 --log.samples 2"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Tests do not change it."""
    return write_lsmi(tmp_path_factory.mktemp("lsmi"))


@pytest.fixture(scope="module", autouse=True)
def small_critics():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_to_raw, "PatchDiscriminator", SmallCritic)
        yield


def options(root: Path, runs: Path, *more: object) -> list[str]:
    own = ["--run", "own", "--runs", str(runs), "--data.layout", "lsmi", "--data.root", str(root)]
    return ["raw2raw", *OPTIONS.split(), *own, *map(str, more)]


def parsed(root: Path, runs: Path, *more: object):
    return fit.parse(options(root, runs, *more))[0]


@pytest.fixture(scope="module")
def run(root, tmp_path_factory, restored_module, small_critics) -> Path:
    """The folder of a finished run of two steps."""
    return fit.train(parsed(root, tmp_path_factory.mktemp("runs"), "--mapping.start", "statistics"))


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "step_0000002.pt"


def by_the_matrix(planes: torch.Tensor, to: str) -> torch.Tensor:
    """The map that made camera b's pictures."""
    matrix = torch.from_numpy(SEEN["b"] if to == "b" else np.linalg.inv(SEEN["b"])).float()
    return torch.einsum("ij,njhw->nihw", matrix, planes)


# --- training --------------------------------------------------------------------------------------------------------


def test_a_run_has_three_channels_throughout(run, root):
    state = storage.load(checkpoint(run))
    assert state["channels"] == 3 and state["generator"]["start_b"].shape == (3, 3)
    assert [line["step"] for line in read_log(run, "train") if "loss/cycle" in line] == [1, 2]
    assert list(read_scores(run)) == ["identity", "transport", "statistics", "final"]
    assert (run / "samples" / "train_0000002.png").exists()


def test_training_sees_what_half_size_pictures_show(root, tmp_path):
    """R, the mean of the greens, B; as dcraw -h makes them, but for rounding."""
    cameras = open_two_cameras(parsed(root, tmp_path))
    path = cameras.unpaired["b"][0]
    mosaic = Reader(CAMERAS["b"]).mosaic(path).astype(float)  # grbg
    red, green, blue = mosaic[::2, 1::2], (mosaic[::2, ::2] + mosaic[1::2, 1::2]) / 2, mosaic[1::2, ::2]
    expected = (np.stack((red, green, blue)) - 256) / (4095 - 256)
    np.testing.assert_allclose(cameras.planes(path, "b")[0], expected.clip(0, 1), atol=1e-6)


def test_a_killed_run_ends_bit_for_bit_like_one_that_was_not(root, tmp_path, monkeypatch):
    whole = train(parsed(root, tmp_path / "whole"))
    config = parsed(root, tmp_path / "killed")
    for step in (2, 1):
        with monkeypatch.context() as patch:
            kill_at_step(patch, step)
            assert not (train(config, resume=True) / "summary.json").exists()
    ends = [storage.load(folder / "last.pt") for folder in (train(config, resume=True), whole)]
    assert same(*(end["trainer"] for end in ends))


def test_a_resumed_run_knows_its_charts(tmp_path):
    config = parsed(write_lsmi(tmp_path / "data"), tmp_path / "runs")
    fit.train(config)
    meta = tmp_path / "data" / "sony" / "meta.json"
    edit(meta, lambda content: content["Place1"]["MCCCoord"].update(mcc1=None))
    with pytest.raises(UserError, match="the dataset is not the one"):
        fit.train(parsed(tmp_path / "data", tmp_path / "runs", "--mapping.steps", 3), resume=True)


def test_training_starts_from_a_checkpoint_of_as_many_channels_only(run, root, tmp_path):
    fit.train(parsed(root, tmp_path, "--init", checkpoint(run), "--mapping.steps", 0))
    assert read_scores(tmp_path / "own")["final"] == pytest.approx(read_scores(run)["final"], abs=1e-9)
    with pytest.raises(UserError, match="maps planes of 3 channels, and the run has 4: set --mapping.channels 3"):
        fit.train(parsed(root, tmp_path, "--run", "four", "--mapping.channels", 4, "--init", checkpoint(run)))


def test_four_channels_are_for_this_layout_too(root, tmp_path):
    folder = fit.train(parsed(root, tmp_path, "--mapping.channels", 4, "--mapping.steps", 1))
    assert storage.load(folder / "checkpoints" / "step_0000001.pt")["generator"]["start_a"].shape == (4, 4)


@pytest.mark.parametrize(
    "given, sentence",
    (
        (("--mapping.channels", 5), "mapping.channels must be 4 or 3, not 5"),
        (("--data.raw", "leica"), "no folder .*leica"),
        (("--data-b.raw", "sony"), "is the folder of both cameras"),
    ),
)
def test_wrong_settings_are_refused(root, tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        parsed(root, tmp_path / "runs", *given)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_the_perfect_map_has_the_charts_colours_though_pictures_differ(root, tmp_path):
    cameras = open_two_cameras(parsed(root, tmp_path))
    columns = columns_of(cameras)
    assert list(columns) == [f"{name}{end}" for name in ("psnr", "mae", "kl") for end in ("", "_ab", "_ba")]
    maps = {"perfect": by_the_matrix, "identity": lambda planes, to: planes}
    results = score_maps(maps, cameras, columns_of(cameras, ["psnr", "mae", "angle"]), CPU)
    rows, perfect = results["perfect"]
    assert list(rows) == ["Place5_1", "Place5_12"] and "psnr_ba" in rows["Place5_1"]
    assert perfect["mae"] < 1e-3 and perfect["psnr"] > 55 and perfect["angle"] < 0.1
    assert results["identity"][1]["mae"] > 0.05


def test_kl_compares_whole_pictures_of_any_size(root, tmp_path):
    cameras = open_two_cameras(parsed(root, tmp_path))
    rows = score_maps({"same": lambda planes, to: planes}, cameras, ("kl_ab",), CPU)["same"][0]
    source, truth = cameras.pair(cameras.pairs[0])
    assert source.shape != truth.shape
    expected = _kl_by_hand(source[0], truth[0])
    assert rows["Place5_1"]["kl_ab"] == pytest.approx(expected, rel=1e-9) and expected > 0


def _kl_by_hand(x: torch.Tensor, y: torch.Tensor) -> float:
    p, q = (
        np.stack(
            [np.histogram(np.floor(255 * channel.numpy()), np.arange(257))[0] / channel.numel() for channel in each]
        )
        for each in (x, y)
    )
    ratio = np.log((p + 1e-7) / (q + 1e-7))
    return float((p * ratio - q * ratio).sum(1).mean())


def test_ssim_is_refused_by_name(root, tmp_path):
    cameras = open_two_cameras(parsed(root, tmp_path))
    for name in ("ssim", "ssim_ab"):
        with pytest.raises(UserError, match=f"'{name}' compares pixels, which do not agree"):
            columns_of(cameras, ["psnr", name])


def test_other_corners_make_tables_stale(run, root, tmp_path):
    tables = [open_tables(run, open_two_cameras(parsed(root, tmp_path))).facts for _ in range(2)]
    other = write_lsmi(tmp_path / "other")
    edit(other / "sony" / "meta.json", lambda content: content["Place5"]["MCCCoord"].update(mcc1=None))
    cameras = open_two_cameras(parsed(other, tmp_path))
    assert tables[0] == tables[1] != open_tables(run, cameras).facts
    assert "three planes" in describe("raw2raw", cameras) and "patches of charts" in describe("raw2raw", cameras)


def test_the_commands_score_a_run(run, call, tmp_path):
    status, printed = call(inference, "2", "--run=own", f"--runs={run.parent}", "--device=cpu")
    assert status == 0, printed
    table = read_table(run / "scores" / "raw2raw" / "step_0000002.csv")
    assert table.mean["psnr"] == pytest.approx(read_scores(run)["final"], abs=1e-4)
    out = tmp_path / "test"
    status, printed = call(testing, "--run=own", f"--runs={run.parent}", "--device=cpu", "--output", out)
    assert status == 0, printed
    assert (out / "pictures.png").exists() and "no SSIM" in printed
    assert read_table(out / "step_0000002" / "metrics.csv").mean["psnr"] == pytest.approx(table.mean["psnr"], abs=1e-4)


# --- use -------------------------------------------------------------------------------------------------------------


def test_a_mapper_of_three_channels_maps_files_and_keeps_each_green_s_detail(run, root, call, tmp_path):
    source = root / "sony" / "Place5" / "Place5_12.arw"
    given = ("--input", source, "--output", tmp_path / "out", "--to", "b", "--run", "own", "--runs", run.parent)
    status, printed = call(map_raw, *given, "--device", "cpu")
    assert status == 0, printed
    found = next((tmp_path / "out").glob("Place5_12*.dng"))
    mosaic = Reader(CAMERAS["b"]).mosaic(found)
    planes = to_planes(Reader(CAMERAS["b"]).mosaic_tensor(mosaic)[None], CAMERAS["b"])
    expected = by_the_matrix(merge_greens(open_two_cameras(parsed(root, tmp_path)).planes(source, "a", 4)), "b")
    assert planes.shape == (1, 4, 60, 88)
    assert (merge_greens(planes).mean((2, 3)) - expected.mean((2, 3))).abs().max() < 0.1  # roughly, after two steps
