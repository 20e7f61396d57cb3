"""The benchmark of maps between two cameras: each row is run once, and its table compares with the transport."""

import json

import pytest
import torch

from data.two_cameras import CAMERAS
from errors import UserError

from .benchmark_runs import run_main, smooth_photos

SIDE = 48


@pytest.fixture
def photos(tmp_path):
    return smooth_photos(tmp_path, 6, (2 * SIDE, SIDE))


@pytest.fixture
def tiny(load):
    """load(name) with small mosaics and a single step of training."""

    def loaded(name: str):
        module = load(name)
        module.PATCH = SIDE
        module.TRAINING = f"{module.TRAINING} --data.patch {SIDE} --data.batch 1 --mapping.steps 1"
        return module

    return loaded


def test_finished_rows_are_not_run_again(tiny, monkeypatch, tmp_path, capsys, photos):
    out = tmp_path / "out"
    options = (photos, "--out", out, "--lights", "single", "--seeds", 3)
    rows = ("identity", "transport", "paired 3x3", "paired quadratic", "mapper-transport")
    run_main(tiny, monkeypatch, "raw_to_raw", *options, "--rows", *rows)
    printed = capsys.readouterr().out
    files = {file.stem: json.loads(file.read_text())["means"] for file in (out / "scores" / "single_3").iterdir()}
    assert files.keys() == {row.replace(" ", "-") for row in rows}
    assert files["paired-3x3"]["psnr"] > files["transport"]["psnr"] > files["identity"]["psnr"] > 10
    # One step of training, averaged with its start, hardly changes the map that it starts from.
    assert files["mapper-transport"]["psnr"] == pytest.approx(files["transport"]["psnr"], abs=0.5)
    over = files["paired-3x3"]["psnr"] - files["transport"]["psnr"]
    line = next(line for line in printed.splitlines() if line.startswith("| paired 3x3"))
    assert f"| 3 | {files['paired-3x3']['psnr_ab']:.2f} | " in line and f"| +{over:.2f} (+{over:.2f}) |" in line

    module = tiny("raw_to_raw")
    monkeypatch.setattr(module, "score_maps", lambda *_: pytest.fail("a finished row was scored again"))
    run_main(lambda _: module, monkeypatch, "raw_to_raw", *options, "--rows", *rows)
    monkeypatch.setattr(module, "TRAINING", f"{module.TRAINING} --mapping.lr 1e-3")
    with pytest.raises(UserError, match="mapper-transport.json is of other settings .*1e-4.*remove it"):
        run_main(lambda _: module, monkeypatch, "raw_to_raw", *options, "--rows", *rows)
    (out / "scores" / "single_3" / "identity.json").write_text("[]")
    with pytest.raises(UserError, match="identity.json holds no scores of this benchmark"):
        run_main(lambda _: module, monkeypatch, "raw_to_raw", *options, "--results")


class KnownPairs:
    """Two cameras, each of which sees another polynomial of the other's colours; the greens are equal."""

    def __init__(self, quadratic: float):
        self.pairs = [type("Pair", (), {"camera": camera, "seed": seed}) for camera in CAMERAS for seed in (1, 2)]
        self.quadratic = quadratic

    def pair(self, pair) -> tuple[torch.Tensor, torch.Tensor]:
        planes = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(pair.seed))
        planes[:, 2] = planes[:, 1]
        red, green, _, blue = planes.unbind(1)
        truth = torch.stack((0.5 * red + 0.25 * blue, green, green, 0.75 * blue + self.quadratic * red * green), 1)
        return planes, truth


@pytest.mark.parametrize(("quadratic", "coefficient"), ((False, 0.0), (True, 0.3)))
def test_maps_of_pairs_are_the_least_squares_solution(load, quadratic, coefficient):
    cameras = KnownPairs(coefficient)
    found = load("raw_to_raw").fit_pairs(cameras, quadratic)
    for pair in cameras.pairs:
        planes, truth = cameras.pair(pair)
        torch.testing.assert_close(found["b" if pair.camera == "a" else "a"](planes), truth, rtol=0, atol=1e-4)


def test_every_row_that_is_trained_is_a_command_that_fit_accepts(load, tmp_path, monkeypatch, tiny, photos):
    module = load("raw_to_raw")
    module.PATCH = SIDE
    module.make_dataset(str(photos), tmp_path / "cams", "mixed", 0)
    starts = set()
    for row in module.TRAINED:
        place = ("--data.root", str(tmp_path / "cams"), "--run", "none", "--runs", str(tmp_path))
        config, _ = module.fit.parse([*module.options_of(row).split(), *place])
        assert config.mapping.steps == config.log.save_every
        assert (config.mapping.identity == 0) == (config.mapping.start != "identity")
        starts.add((config.mapping.start, config.mapping.critic_norm, config.model))
    assert len(starts) == len(module.TRAINED)
