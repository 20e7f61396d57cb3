"""The comparison of networks: what it counts and measures, the runs that it trains, the tables that it writes."""

import json
import shlex

import pytest

import fit
from errors import UserError
from models import MODELS

from .benchmark_runs import FOLDER, run_main

FEW = ("robust", "efficient-context")
OTHERS = sorted(MODELS.keys() - set(FEW))
TINY = "--data.patch 32 --pretrain.steps 0 --train.steps 2 --log.val-every 2 --device cpu --data.val-count 0"


@pytest.fixture
def networks(load):
    return load("networks")


@pytest.fixture
def document(tmp_path):
    """A file with markers for both tables."""
    file = tmp_path / "networks.md"
    names = ("networks", "training")
    markers = (f"<!-- {name}: made by benchmarks/networks.py -->\nold\n<!-- end of {name} -->" for name in names)
    file.write_text("# Networks\n\n" + "\n\nbetween\n\n".join(markers) + "\n\nafter\n")
    return file


def test_operations_are_those_of_the_convolutions_at_half_resolution(networks):
    assert networks.macs_a_pixel("efficient", (64, 48)) == (9 * 12 * (4 + 12 + 12)) / 4
    # One neighbour of nine: 48 numbers of 8 features. Down: 4 -> 8 -> 8, 8 -> 16 -> 16, 16 -> 32 -> 32; up: 48 -> 16
    # -> 16, 24 -> 8 -> 8.
    full, half, quarter = 4 * 8 + 8 * 8 + 24 * 8 + 8 * 8, 8 * 16 + 16 * 16 + 48 * 16 + 16 * 16, 16 * 32 + 32 * 32
    expected = (9 * (full + half / 4 + quarter / 16) + 9 * 48 * 8) / 4
    assert networks.macs_a_pixel("per-pixel-kernels-small", (64, 64)) == expected


@pytest.mark.parametrize(
    ("name", "rows"),
    (
        ("efficient", 14),  # three 3x3 convolutions see seven packed pixels
        ("efficient-context", 14),
        ("rmfa-tiny", "whole image"),
        ("per-pixel-kernels-small", 2 * MODELS["per-pixel-kernels-small"].reach),
    ),
)
def test_receptive_field(networks, name, rows):
    assert networks.receptive_field(name) == rows


def test_networks_are_measured_once_and_written_between_the_markers(networks, monkeypatch, tmp_path, document, capsys):
    out = tmp_path / "out"
    options = ("--out", out, "--size", 32, 48, "--repeats", 1, "--without", *OTHERS, "--write", document)
    run_main(lambda _: networks, monkeypatch, "networks", *options)
    text = document.read_text()
    assert (
        "| robust | 1,616 | 396 | 14x14 | `packed` |" in text
        and "32x48 | memory |" in text
        and " MiB |" in text
        and "rmfa" not in text
    )
    assert text.startswith("# Networks\n") and text.endswith("after\n") and text.count("old") == 1
    times = {file.stem: json.loads(file.read_text())["milliseconds"] for file in (out / "networks").iterdir()}
    assert times.keys() == set(FEW) and min(times.values()) > 0
    monkeypatch.setattr(networks, "cost", lambda *_: pytest.fail("a network was measured again"))
    run_main(lambda _: networks, monkeypatch, "networks", *options)
    assert document.read_text() == text
    with pytest.raises(UserError, match="of another machine or other settings: remove it, or give another --out"):
        run_main(lambda _: networks, monkeypatch, "networks", *options, "--repeats", 2)
    (out / "networks" / "robust.json").write_text("{")
    with pytest.raises(UserError, match="robust.json holds no figures of this benchmark"):
        run_main(lambda _: networks, monkeypatch, "networks", *options)
    with pytest.raises(UserError, match="CITATION.cff has no lines '<!-- networks"):
        networks.write_table(FOLDER.parent / "CITATION.cff", "networks", ())


def test_runs_are_trained_and_scored_once(networks, monkeypatch, tmp_path, document, fit_dataset, restored, capsys):
    options = ("--out", tmp_path / "out", "--size", 32, 32, "--repeats", 1, "--without", *OTHERS, "efficient-context")
    options += ("--write", document, "--train", "--root", fit_dataset)
    options += ("--models", "robust", "--ways", "paired", "--steps", 2, "--seeds", 2, "--", *TINY.split())
    run_main(lambda _: networks, monkeypatch, "networks", *options)
    scores = {file.stem: json.loads(file.read_text())["means"] for file in (tmp_path / "out" / "scores").iterdir()}
    assert scores.keys() == {"paired-robust-0", "paired-robust-1"}
    mean = sum(scores[f"paired-robust-{seed}"]["psnr"] for seed in (0, 1)) / 2
    each = ", ".join(f"{scores[f'paired-robust-{seed}']['psnr']:.2f}" for seed in (0, 1))
    assert f"| robust | {mean:.2f} dB ({each}) |" in document.read_text() and 3 < mean < 60
    monkeypatch.setattr(fit, "train", lambda *_: pytest.fail("a finished run was trained again"))
    run_main(lambda _: networks, monkeypatch, "networks", *options)
    with pytest.raises(UserError, match="paired-robust-0.json is of other settings"):
        run_main(lambda _: networks, monkeypatch, "networks", *options, "--train.lr", "1")


@pytest.mark.parametrize("way", ("paired", "unpaired", "synthetic"))
def test_all_networks_have_the_same_budget_and_rate(networks, way):
    configs = {}
    for name in ("efficient", "rmfa-tiny", "per-pixel-kernels-small"):
        configs[name] = fit.parse([*networks.options_of(way, name, 50), "--data.root", "ROOT"])[0]
    budgets = {(c.data.patch, c.data.batch, c.pretrain.steps, c.train.steps, c.train.mode) for c in configs.values()}
    assert budgets == {(160, 2, 50, 12, way) if way == "unpaired" else (160, 2, 0, 50, way)}
    for name, config in configs.items():
        assert config.model == name and config.train.lr == config.pretrain.lr == networks.RATE


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ("--steps 5", "steps: no effect without --train"),
        ("-- --seed 1", "options: no effect without --train"),
        ("--train", "--train needs --root"),
    ),
)
def test_options_that_do_not_fit_are_refused(networks, options, message, capsys):
    with pytest.raises(SystemExit) as end:
        networks.parse(["--out", "out", *shlex.split(options)])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_an_unknown_network_lists_the_known_ones(networks):
    with pytest.raises(UserError, match="unknown model 'lena'; known are: efficient"):
        networks.parse(["--out", "out", "--without", "lena"])
