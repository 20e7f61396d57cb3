"""The paper's task: how the config's choices reach data and validation."""

import pytest
import torch

from config import Config, Released
from evaluation.metrics import psnr, psnr_float
from tasks.isp import CHUNK, build_generator, build_task
from training.distributed import ALONE
from training.task import Task

from ..fit_runs import vary

pytestmark = pytest.mark.usefixtures("restored", "cached_networks")
CPU = torch.device("cpu")
SWITCHES = (({}, False), ({"as_released": True}, True))


def build(config: Config) -> Task:
    return build_task(config, CPU, ALONE, resume=False)


def test_as_released_turns_on_every_switch():
    assert Config().quirks == Released() and not any(vars(Config().quirks).values())
    assert all(vars(Config(as_released=True).quirks).values())
    assert Config(released=Released(chunks=True)).quirks == Released(chunks=True)


@pytest.mark.parametrize(("options", "on"), (*SWITCHES, ({"released": Released(float_psnr=True)}, True)))
def test_the_released_code_validates_by_the_psnr_of_floats(cheap_config, options, on):
    validation = build(vary(cheap_config, **options)).validation
    assert validation.score is (psnr_float if on else psnr)
    assert ("(floats, RGB" in validation.title) == on


@pytest.mark.parametrize(("options", "on"), (*SWITCHES, ({"released": Released(chunks=True)}, True)))
def test_the_released_code_draws_chunks_of_100_batches(cheap_config, options, on, monkeypatch):
    seen = []
    monkeypatch.setattr("tasks.isp.Patches", lambda *arguments, **more: seen.append(more["chunk"]))
    build(vary(cheap_config, **options))
    assert seen == [CHUNK * cheap_config.data.batch if on else 0] * 2 and CHUNK == 100


@pytest.mark.parametrize(("options", "on"), (*SWITCHES, ({"released": Released(permutation=True)}, True)))
def test_the_released_code_permutes_the_photographs_without_a_condition(cheap_config, options, on):
    """Of twelve seeds, several leave a photograph in its place, if they may."""
    in_place = []
    for seed in range(12):
        names = build(vary(cheap_config, seed=seed, **options)).stages[1].batches.args[0].split
        in_place.append(sum(raw.stem == photo.stem for raw, photo in zip(names.raws, names.photos, strict=True)))
    assert (max(in_place) > 0) == on


@pytest.mark.parametrize("cfa, noted", (("rggb", False), ("grbg", True)))
def test_starting_from_a_generator_of_another_cfa_order_is_noted(make_files, capsys, cfa, noted):
    weights, _, _ = make_files()
    build_generator("", str(weights), cfa)
    assert ("was trained on mosaics of order rggb, these are grbg" in capsys.readouterr().err) == noted
