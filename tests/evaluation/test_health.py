"""Signs that training goes wrong: values by hand, and alarms that bad runs set off and good ones do not."""

import pytest
import torch

from evaluation.health import RULES, Watch, alarms, measure, mesh


def photograph(seed: int = 0, side: int = 64) -> torch.Tensor:
    """Coarse noise (3, H, W) in [0.25, 0.75]."""
    coarse = torch.rand(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0].clamp(0, 1) / 2 + 0.25


PHOTOS = [photograph(seed) for seed in range(8)]


def health(*outputs: torch.Tensor) -> dict[str, float]:
    return {name.removeprefix("health/"): value for name, value in measure(outputs, PHOTOS, PHOTOS).items()}


@pytest.mark.parametrize("direction", ("rows", "columns", "both", "one colour"))
def test_a_mesh_is_measured_in_grey_levels(direction):
    image = torch.full((3, 64, 48), 0.5)
    pattern = 4 / 255 * (1 - 2 * (torch.arange(48) % 2)).expand(64, 48)
    if direction != "columns":
        pattern = 4 / 255 * (1 - 2 * (torch.arange(64) % 2))[:, None].expand(64, 48)
    if direction == "both":
        pattern = pattern * (1 - 2 * (torch.arange(48) % 2))
    image[slice(0, 1) if direction == "one colour" else slice(0, 3)] += pattern
    assert mesh(image).item() == pytest.approx(4, rel=1e-4)


def test_noise_and_textures_are_no_mesh():
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert mesh(noise) < 0.8 and mesh(PHOTOS[0]) < 0.5


def test_good_images_show_no_signs():
    found = health(*PHOTOS)
    assert found["structure"] == pytest.approx(1) and found["cast"] == 0 and found["mesh"] < 0.5
    darker = health(*[image * 0.7 for image in PHOTOS])
    assert darker["structure"] == pytest.approx(1) and darker["cast"] < 10


def change(colour: int, values: torch.Tensor | float, image: torch.Tensor) -> torch.Tensor:
    image = image.clone()
    image[colour] = values
    return image


@pytest.mark.parametrize("colour", range(3))
def test_a_dead_and_an_inverted_colour(colour):
    assert health(*[change(colour, 0.0, image) for image in PHOTOS])["structure"] == pytest.approx(0, abs=1e-3)
    assert health(*[change(colour, 1 - image[colour], image) for image in PHOTOS])["structure"] == pytest.approx(-1)


@pytest.mark.parametrize(("colour", "cast"), ((0, 20), (1, 20), (2, 20)))
def test_a_cast_is_measured_in_grey_levels(colour, cast):
    tinted = [change(colour, image[colour] + cast / 255, image) for image in PHOTOS]
    assert health(*tinted)["cast"] == pytest.approx(cast, rel=1e-4)


# --- alarms ----------------------------------------------------------------------------------------------------------


def log_of(statistic: str, values: list[float]) -> list[dict]:
    return [{"stage": "train", "step": 10 * i, statistic: value} for i, value in enumerate(values, 1)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.statistic)
def test_an_alarm_needs_several_lines_beyond_its_limit_and_sounds_once(rule):
    name = rule.statistic if rule.statistic.startswith("health") else "critic/lin0/gap"
    bad, good = rule.limit + rule.sign * 0.3, rule.limit - rule.sign * 0.4
    assert alarms(log_of(name, [good] * 30)) == []
    assert alarms(log_of(name, [good] * 5 + [bad] + [good] * 30)) == []
    (sentence,) = alarms(log_of(name, [good] * 20 + [bad] * 3 * rule.lines))
    assert sentence.startswith("step ") and "of train: " in sentence
    assert rule.statistic.startswith("health") or "the critic lin0 tells all" in sentence


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.statistic)
def test_what_gets_better_is_no_alarm(rule):
    name = rule.statistic if rule.statistic.startswith("health") else "critic/lin0/gap"
    falling = [rule.limit + rule.sign * 2.0 * 0.7**line for line in range(60)]
    if rule.lines < 10:
        falling = [rule.limit + rule.sign * 2.0 * 0.4**line for line in range(20)]
    assert alarms(log_of(name, falling)) == []


def test_each_stage_is_watched_anew():
    watch, values = Watch(), {"health/mesh": 9.0}
    for step in (1, 2):
        assert watch.look("pretrain", step, values) == [] and watch.look("train", step, values) == []
    assert len(watch.look("train", 3, values)) == len(watch.look("pretrain", 3, values)) == 1


def test_pretraining_may_have_the_cast_of_the_demosaiced_rendering():
    log = log_of("health/cast", [60.0] * 9)
    assert alarms([line | {"stage": "pretrain"} for line in log]) == [] and len(alarms(log)) == 1


def test_lines_without_signs_are_passed_over():
    assert alarms([{"stage": "start", "weights": {}}, {"stage": "train", "step": 1, "val_psnr": 20.0}]) == []
