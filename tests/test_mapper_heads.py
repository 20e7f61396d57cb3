"""The benchmark of the mapper's heads: exact transforms are exact, patches' centres are where they should be."""

import json

import numpy as np
import pytest
import torch

from data.spectra import Lighting
from data.two_cameras import Pair
from errors import UserError
from models import build_mapper
from models.mapper import Mapper

from .benchmark_runs import run_main, smooth_photos


@pytest.fixture
def heads(load):
    """The benchmark with small datasets and two steps of training."""
    module = load("mapper_heads")
    module.SIDE, module.LARGE, module.CROP, module.STEPS, module.BATCH, module.TIMES = 64, 96, 32, 2, 1, (1, 2)
    return module


@pytest.fixture
def photos(tmp_path):
    return smooth_photos(tmp_path, 6, (192, 96))


def test_rows_are_trained_and_measured_once(heads, monkeypatch, tmp_path, capsys, photos):
    options = (
        photos,
        "--out",
        tmp_path / "out",
        "--rows",
        "identity",
        "3x3",
        "mapper-plain",
        "exact T of each patch",
        "exact T",
    )
    run_main(lambda _: heads, monkeypatch, "mapper_heads", *options)
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "heads").glob("*.json")}
    errors = {row: np.mean(values["T"]) for row, values in found.items()}
    scores = {row: np.mean(values["PSNR"]) for row, values in found.items()}
    assert errors["exact-T"] == 0 < errors["3x3"] < errors["identity"]
    assert errors["exact-T-of-each-patch"] == 0
    assert scores["exact-T"] > scores["exact-T-of-each-patch"] > scores["3x3"] > scores["identity"]
    # Two steps hardly change the matrix from which a mapper starts.
    assert errors["mapper-plain"] == pytest.approx(errors["3x3"], abs=0.02)
    assert scores["mapper-plain"] == pytest.approx(scores["3x3"], abs=3)
    printed = capsys.readouterr().out
    assert "| mapper-plain | " in printed and "| | M 1 | M 2 |" in printed
    monkeypatch.setattr(heads, "Runner", lambda *_: pytest.fail("a finished row was measured again"))
    run_main(lambda _: heads, monkeypatch, "mapper_heads", *options)
    (tmp_path / "out" / "heads" / "identity.json").write_text("{")
    with pytest.raises(UserError, match="identity.json is no row of this benchmark"):
        run_main(lambda _: heads, monkeypatch, "mapper_heads", *options)
    with pytest.raises(UserError, match="3x3.json is of other settings"):
        run_main(lambda _: heads, monkeypatch, "mapper_heads", *options[:4], "3x3", "--steps", 3)


def test_training_and_test_photographs_differ(heads, tmp_path, photos):
    for name, exchanged in (("train", True), ("test", False)):
        heads.make_dataset(photos, tmp_path / name, heads.SIDE, exchanged)
    sides = {}
    for name in ("train", "test"):
        scenes = json.loads((tmp_path / name / "simulation.json").read_text())["scenes"]
        sides[name] = {side: {place["photograph"] for place in found.values()} for side, found in scenes.items()}
    assert sides["train"]["paired"] == sides["test"]["unpaired/a"] | sides["test"]["unpaired/b"]
    assert not sides["train"]["paired"] & sides["test"]["paired"]


def test_training_reduces_the_loss(heads):
    """Truth is another linear map of the planes than the start."""
    rng = torch.Generator().manual_seed(0)
    heads.BATCH, losses = 2, []
    sources = [torch.rand(1, 4, 32, 32, generator=rng) for _ in range(4)]
    samples = {to: [(source, gain * source) for source in sources] for to, gain in (("b", 0.9), ("a", 1.1))}
    mapper = heads.train("mapper-plain", samples, {}, 200, losses.append)
    assert float(losses[-1].split()[-1]) < 0.02 and not mapper.training  # 0.05 at the start


def test_draws_are_of_both_directions(heads):
    samples = {"b": [(torch.zeros(1, 4, 40, 50), torch.ones(1, 4, 40, 50))]}
    samples["a"] = [(torch.full((1, 4, 40, 50), 2.0), torch.full((1, 4, 40, 50), 3.0))]
    sources, truths = heads.draw(samples, np.random.default_rng(0))
    assert sources.shape == truths.shape == (2, 4, 32, 32)
    assert sources[:, 0, 0, 0].tolist() == [0, 2] and truths[:, 0, 0, 0].tolist() == [1, 3]


def test_exact_transforms_are_those_of_the_scene(heads, tmp_path):
    lighting = Lighting.draw(np.random.default_rng(1), mixed=True)
    (tmp_path / "paired" / "a").mkdir(parents=True)
    (tmp_path / "paired" / "transforms").mkdir()
    lighting.save(tmp_path / "paired" / "transforms" / "0.npz", (32, 48))
    a, b = (torch.from_numpy(raw) for raw in lighting.record(np.random.default_rng(2).random((32, 48, 3))))
    planes_a, planes_b = (raw.permute(2, 0, 1)[[0, 1, 1, 2]][None] for raw in (a, b))
    pair = Pair(tmp_path / "paired" / "a" / "0.png", "a", tmp_path)
    for to, source, truth in (("b", planes_a, planes_b), ("a", planes_b, planes_a)):
        exact = heads.exact_transform(pair, to)
        torch.testing.assert_close(heads.apply_transform(source, exact), truth, rtol=0, atol=1e-9)
        centres = heads.at_centres(exact, 2, 3)
        assert centres.shape == (2, 3, 3, 3)
        expected = exact[7:9, 23:25].mean((0, 1))  # around row 8, column 24
        torch.testing.assert_close(centres[0, 1], expected, rtol=0, atol=1e-12)
        assert heads.transform_error(centres, centres) == 0
        assert heads.transform_error(1.25 * centres, centres) == pytest.approx(0.25)


def test_predicted_transforms_are_what_the_mapper_does_to_colours(heads):
    torch.manual_seed(0)
    mapper: Mapper = build_mapper("mapper-plain").eval()
    mapper.start_from("b", torch.rand(4, 4))
    with torch.no_grad():
        mapper.heads["b"][2].bias.view(4, 14)[:, -4:].copy_(torch.rand(4, 4))  # no squares and products
    planes = torch.rand(1, 4, 32, 32)
    planes[:, 2] = planes[:, 1]
    mapped = mapper.map_planes(planes, "b")
    expected = torch.stack((mapped[0, 0], mapped[0, 1:3].mean(0), mapped[0, 3]), -1)
    transform = heads.transforms_of(mapper, planes, "b")[0, 0]
    colors = planes[0, [0, 1, 3]].permute(1, 2, 0)
    torch.testing.assert_close(colors @ transform.T.float(), expected, rtol=0, atol=1e-5)


def test_the_grid_of_a_transform_applies_it(heads):
    planes, transform = torch.rand(1, 4, 32, 32), torch.rand(1, 1, 3, 3, dtype=torch.float64)
    expected = heads.apply_transform(planes, transform.expand(32, 32, 3, 3))
    torch.testing.assert_close(heads.apply(planes, heads.grid_of(transform), 16), expected)
    assert torch.equal(expected[:, 1], expected[:, 2])
    red, blue = planes[0, 0, 0, 0], planes[0, 3, 0, 0]
    value = torch.stack((red, planes[0, 1:3, 0, 0].mean(), blue)).double() @ transform[0, 0].T
    torch.testing.assert_close(expected[0, [0, 1, 3], 0, 0].double(), value, rtol=0, atol=1e-6)
