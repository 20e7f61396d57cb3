"""Protocols: their columns and functions, pyiqa's own numbers, and measures and protocols that a user adds."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from errors import UserError
from evaluation.metrics import MEASURES, Measure, delta_e_2000, image_by_image, ms_ssim, psnr, ssim
from evaluation.protocols import (
    PROTOCOLS,
    Protocol,
    all_measures,
    build,
    choose,
    find_protocol,
    measures_of,
    needs_network,
)
from evaluation.raw_measures import RAW_MEASURES, kl, mae
from evaluation.raw_measures import psnr as raw_psnr
from pretrained import perceptual

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "delta_e": delta_e_2000}


class Distance(torch.nn.Module):
    """In place of a pretrained network: the mean absolute difference. It records the range of its input."""

    def forward(self, image, target):
        assert image.dtype == torch.float32 and not torch.is_grad_enabled()
        self.range = image.min().item(), image.max().item()
        return (image - target).abs().mean((1, 2, 3))


def no_network(name: str) -> torch.nn.Module:
    raise AssertionError(f"the network of {name} is not needed")


def test_every_column_of_a_protocol_is_a_measure():
    for name, protocol in PROTOCOLS.items():
        measures = RAW_MEASURES if name == "raw2raw" else MEASURES
        assert set(protocol.measures) <= set(measures)
        assert set(protocol.functions or ()) <= set(measures)
        assert choose(name, protocol.measures) == protocol.measures
        assert "\n" not in protocol.summary and "truncated" in protocol.summary


@pytest.mark.parametrize(
    "protocol, expected",
    (
        ("paper", ("psnr", "ssim", "ms_ssim", "lpips")),
        ("ntire26", ("psnr", "ssim", "delta_e")),
        ("pyiqa", ("psnr", "ssim", "ms_ssim", "lpips", "lpips_plus")),
    ),
)
def test_a_protocol_has_its_usual_columns_or_the_named_ones_in_their_order(protocol, expected):
    assert choose(protocol) == expected
    assert choose(protocol, ["dists", "psnr", "dists"]) == ("dists", "psnr")
    assert tuple(build(protocol, (), lambda _: Distance())) == expected


@pytest.mark.parametrize(
    "protocol, names, message",
    (
        ("papers", (), "unknown protocol 'papers'; known are: paper, ntire26, pyiqa"),
        ("paper", ("psnr", "mse"), "protocol 'paper' has no measure 'mse'; known are: psnr, .*, ssim, .*, delta_e"),
        (
            "pyiqa",
            ("delta_e",),
            "protocol 'pyiqa' has no measure 'delta_e'; known are: psnr, ssim, .*, kid, fid$",
        ),
        ("raw2raw", ("lpips",), "no measure 'lpips'; known are: psnr, psnr_ab, psnr_ba, ssim, .*, angle_ba$"),
        ("paper", ("kl",), "protocol 'paper' has no measure 'kl'; known are: psnr, psnr_float, .*, delta_e, kid, fid$"),
    ),
)
def test_an_unknown_name_lists_the_known_ones(protocol, names, message):
    for function in (choose, lambda *names: build(*names, no_network)):
        with pytest.raises(UserError, match=message):
            function(protocol, names)


def test_the_paper_s_protocol_takes_the_functions_of_the_table():
    functions = build("paper", ("delta_e", "psnr", "ms_ssim", "ssim"), no_network)
    assert functions == {name: FUNCTIONS[name] for name in ("delta_e", "psnr", "ms_ssim", "ssim")}
    assert build("ntire26", ("psnr", "ssim", "delta_e"), no_network).items() <= functions.items()


# --- planes ----------------------------------------------------------------------------------------------------------


def test_a_protocol_of_planes_has_columns_for_each_direction_too():
    assert choose("raw2raw") == ("psnr", "ssim", "mae", "kl")
    assert choose("raw2raw", ["kl_ba", "psnr", "kl_ba"]) == ("kl_ba", "psnr")
    functions = build("raw2raw", ["kl_ba", "psnr_ab", "psnr"], no_network)
    assert functions == {"kl_ba": kl, "psnr_ab": raw_psnr, "psnr": raw_psnr}
    labels = {name: measure.heading for name, measure in measures_of("raw2raw").items()}
    assert len(labels) == 3 * len(RAW_MEASURES)
    assert [labels[f"psnr{end}"] for end in ("", "_ab", "_ba")] == ["PSNR (dB)", "PSNR a->b (dB)", "PSNR b->a (dB)"]
    assert measures_of("raw2raw")["psnr_ab"].higher_is_better and not measures_of("raw2raw")["kl_ab"].higher_is_better


def test_what_scores_planes_is_refused_for_images_and_the_other_way_round():
    assert find_protocol("raw2raw", "planes") is find_protocol("raw2raw") is PROTOCOLS["raw2raw"]
    assert find_protocol("pyiqa", "images") is PROTOCOLS["pyiqa"]
    message = "'raw2raw' scores mosaics of another camera, .* makes photographs: choose one of paper, ntire26, pyiqa$"
    with pytest.raises(UserError, match=message):
        find_protocol("raw2raw", "images")
    with pytest.raises(UserError, match="'paper' scores photographs, .* another camera: choose one of raw2raw$"):
        find_protocol("paper", "planes")


def test_a_measure_and_a_protocol_of_planes_can_be_added(monkeypatch):
    monkeypatch.setitem(RAW_MEASURES, "brightness", Measure("Brightness", "", False, 3, mae, of_floats=True))
    monkeypatch.setitem(PROTOCOLS, "mine", Protocol("brightness of planes", ("brightness",), scored="planes"))
    assert choose("mine") == ("brightness",) and choose("raw2raw", ["brightness_ba"]) == ("brightness_ba",)
    assert build("mine", (), no_network) == {"brightness": mae}
    with pytest.raises(UserError, match="choose one of raw2raw, mine"):
        find_protocol("paper", "planes")


def test_headings_of_all_protocols():
    measures = all_measures()
    assert measures.keys() == MEASURES.keys() | measures_of("raw2raw").keys()
    for name in MEASURES.keys() & RAW_MEASURES.keys():  # one heading serves both
        a, b = MEASURES[name], RAW_MEASURES[name]
        assert (a.heading, a.higher_is_better, a.digits) == (b.heading, b.higher_is_better, b.digits)


# --- networks --------------------------------------------------------------------------------------------------------


def test_a_network_is_built_once_and_gets_8_bit_levels_between_0_and_1(random_image):
    built = {}
    functions = build("paper", ("psnr", "lpips"), lambda name: built.setdefault(name, Distance()))
    assert list(functions) == ["psnr", "lpips"] and list(built) == ["lpips"]
    image, target = random_image(5, 3, 64, 64), random_image(5, 3, 64, 64, seed=1)
    score = functions["lpips"](image, target)
    assert built["lpips"].range == (0, 1) and score.dtype == torch.float64
    torch.testing.assert_close(score, (image / 255 - target / 255).abs().mean((1, 2, 3)).double())
    assert functions["lpips"](image.float(), target).shape == (5,)
    assert functions["lpips"](image[None], target).shape == (1, 5)
    with pytest.raises(UserError, match="of the same size"):
        functions["lpips"](image, target[..., 1:])


def test_networks_compute_lpips_dists_and_the_distances_of_sets_alone():
    assert not any(needs_network("raw2raw", name) for name in measures_of("raw2raw"))
    for protocol in PROTOCOLS.keys() - {"raw2raw"}:
        columns = [name for name in MEASURES if (protocol, name) != ("pyiqa", "delta_e")]
        networks = ["lpips", "lpips_plus", "dists", "kid", "fid"]
        assert [name for name in columns if needs_network(protocol, name)] == networks


def test_images_too_small_for_a_network_are_refused():
    functions = build("paper", ["lpips"], lambda _: perceptual.lpips("random"))
    small, enough = (torch.zeros(1, 3, side, side, dtype=torch.uint8) for side in (16, 32))
    assert functions["lpips"](enough, enough).item() == 0
    with pytest.raises(UserError, match="LPIPS needs sides of at least 32 pixels, but the images are 16x16"):
        functions["lpips"](small, small)


# --- pyiqa -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("psnr", "ssim", "ms_ssim"))
def test_protocol_pyiqa_equals_pyiqa(name, golden_pairs):
    pyiqa = pytest.importorskip("pyiqa")
    image, target = golden_pairs["gamma, 181x240"]
    [measure] = build("pyiqa", [name], no_network).values()
    expected = pyiqa.create_metric(name, device="cpu")(image / 255, target / 255)
    assert measure(image, target).dtype == torch.float64
    assert measure(image, target).tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    if name != "psnr":
        assert abs(measure(image, target) - FUNCTIONS[name](image, target)) > 1e-3  # on Y, not on RGB
        with pytest.raises(UserError, match="SSIM needs sides of at least"):
            measure(image[..., :10], target[..., :10])


def test_neither_importing_nor_building_imports_a_toolbox():
    code = """
import sys
from evaluation import protocols
protocols.build("paper", ["psnr", "ssim", "ms_ssim", "delta_e"], None)
protocols.choose("pyiqa")
assert not {"pyiqa", "colour", "skimage"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- what a user adds ------------------------------------------------------------------------------------------------


@image_by_image
def mean_error(image, target):
    return (image.double() - target).abs().mean()


@pytest.fixture
def added(monkeypatch):
    """A measure with a function, a measure with a network, and two protocols, as a user's own code adds them."""
    monkeypatch.setitem(MEASURES, "mean_error", Measure("Mean error", "levels", False, 1, mean_error))
    monkeypatch.setitem(MEASURES, "own_network", Measure("Own network", "", False, 4, None))
    monkeypatch.setitem(PROTOCOLS, "own", Protocol("our own measures", ("mean_error", "own_network", "psnr")))
    half = {"psnr": lambda image, target: psnr(image, target) / 2, "lpips": mean_error}
    monkeypatch.setitem(PROTOCOLS, "replaced", Protocol("our own functions", ("psnr", "own_network"), half))


def test_an_added_measure_is_known_to_every_protocol_without_own_functions(added):
    assert choose("paper", ["mean_error", "psnr"]) == ("mean_error", "psnr")
    [function] = build("ntire26", ["mean_error"], no_network).values()
    image = torch.full((2, 2, 3, 4, 4), 0.5)
    torch.testing.assert_close(function(image, torch.zeros(2, 3, 4, 4)), torch.full((2, 2), 127.0).double())
    with pytest.raises(UserError, match="'pyiqa' has no measure 'mean_error'"):
        choose("pyiqa", ["mean_error"])


def test_an_added_measure_without_function_gets_its_network_from_the_caller(added):
    functions = build("pyiqa", ["own_network"], {"own_network": Distance()}.__getitem__)
    white = torch.ones(1, 3, 32, 32)
    assert functions["own_network"](white, 0 * white).item() == 1 and needs_network("pyiqa", "own_network")
    with pytest.raises(UserError, match="Own network needs sides of at least 32 pixels"):
        functions["own_network"](white[..., 1:], white[..., 1:])


def test_an_added_protocol_is_chosen_and_built(added):
    assert choose("own") == ("mean_error", "own_network", "psnr")
    functions = build("own", (), lambda _: Distance())
    assert list(functions) == ["mean_error", "own_network", "psnr"] and functions["psnr"] is psnr
    with pytest.raises(UserError, match="known are: paper, ntire26, pyiqa, raw2raw, own, replaced"):
        choose("other")


def test_an_added_protocol_with_own_functions_replaces_those_of_the_table(added, random_image):
    image, target = random_image(1, 3, 32, 32), random_image(1, 3, 32, 32, seed=1)
    functions = build("replaced", ["psnr", "lpips"], no_network)
    assert functions["psnr"](image, target) == psnr(image, target) / 2
    assert functions["lpips"] is mean_error and not needs_network("replaced", "lpips")
    with pytest.raises(UserError, match="'replaced' has no measure 'ssim'"):
        choose("replaced", ["ssim"])
