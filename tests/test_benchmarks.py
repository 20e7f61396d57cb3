"""The benchmarks compare what they claim to compare, and their JSON files have the keys that are read from them."""

import hashlib
import io
import json
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fit
from config import PRESETS, Backbones
from data.inputs import prepare
from data.reference import Reference
from data.sensor import SENSORS
from errors import UserError
from evaluation.tables import Table
from tasks.features import Networks
from tasks.isp import build_generator
from tasks.modes import build_trainer
from training.log import Stopwatch
from training.steps import Batch

from .benchmark_runs import FOLDER, run_main

WITHOUT_JSON = (
    "ablations",
    "alignment",
    "cross_camera",
    "export",
    "health",
    "mapper_heads",
    "misalignment",
    "networks",
    "paper_run",
    "quality",
    "raw_to_raw",
    "selection",
)
BENCHMARKS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
CPU = torch.device("cpu")


@pytest.mark.parametrize("target_gradients", (False, True))
def test_published_procedure_has_the_same_gradient_as_the_trainer(load, target_gradients):
    """In float32 within 1e-5, in the same memory layout: other rounding can switch a ReLU, and so change a gradient."""
    base = PRESETS["fujifilm-efficient"]
    config = replace(base, data=replace(base.data, patch=64, batch=2))
    config = replace(config, backbones=Backbones("random", vit="vit_tiny_patch16_224"))
    torch.manual_seed(0)
    generator = build_generator("efficient", "")[1]
    networks = Networks(config, CPU)
    trainer = build_trainer(config, generator, networks)
    for network in networks.built.values():
        network.to(memory_format=torch.contiguous_format)
    published = load("train_step").Published(generator, trainer, networks, 1e-4, target_gradients, nullcontext)
    sensor, mosaic, target = SENSORS["fujifilm"], torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    inputs, reference = prepare(mosaic, sensor, "packed"), Reference(sensor)(mosaic)
    logged = published.step(inputs, reference, target, critics=True)
    statistics = trainer.step(Batch(inputs, reference, target), 10)
    gradient, expected = (
        torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (generator, published.generator)
    )
    assert (gradient - expected).norm() < 1e-5 * expected.norm()
    assert all(value == pytest.approx(1, abs=0.05) for value in logged.values())
    assert {f"norm/{name}" for name in logged} <= statistics.keys()


def test_train_step_writes_its_ratios(load, monkeypatch, tmp_path, capsys):
    file = tmp_path / "out.json"
    size = ("--device", "cpu", "--batch", 1, "--patch", 32, "--repeats", 1)
    networks = ("--vit", "vit_tiny_patch16_224", "--weights", "random")
    run_main(load, monkeypatch, "train_step", *size, *networks, "--json", file)
    figures = json.loads(file.read_text())
    assert figures["ratio_published"] > 0 and figures["ratio_floor"] > 0
    assert {"ours", "floor", "published"} <= figures["seconds_an_image"].keys()
    assert figures["machine"]["torch"] == torch.__version__.split("+")[0]
    assert "times the floor" in capsys.readouterr().out


def test_critics_count_once_in_critic_every_steps(load):
    times = {"ours": [4.0], "ours, critics": [14.0], "floor": [2.0]}
    assert load("train_step").seconds_an_image(times, batch=2, critic_every=10) == {"ours": [2.5], "floor": [1.0]}


def test_libraw_reads_the_mosaic_of_the_dng_file(load):
    rawpy = pytest.importorskip("rawpy")
    mosaic = np.random.default_rng(0).integers(60, 1024, (64, 96)).astype(np.uint16)
    with rawpy.imread(io.BytesIO(load("common").dng(mosaic))) as raw:
        assert (raw.raw_image_visible == mosaic).all()
        assert raw.white_level == 1023 and raw.black_level_per_channel[:3] == [60] * 3
        assert raw.postprocess().shape == (64, 96, 3)


@pytest.mark.parametrize("name", ("efficient", "rmfa-large-32", "rmfa-large-64", "rmfa-tiny", "robust"))
def test_all_ways_to_develop_a_mosaic_give_the_same_image(load, name):
    module = load("inference")
    ways = module.ways_to_develop(name, (32, 48), CPU)  # asserts that "ours" and "as released" give the same image
    assert ways["ours"]().shape == (32, 48, 3)
    assert np.abs(ways["ours, bf16"]().astype(int) - ways["as released"]()).max() <= 4
    networks = module.ways_to_run(name, (32, 48), CPU, compiled=False)
    torch.testing.assert_close(networks["channels-last"](), networks["as released"](), rtol=1e-4, atol=1e-5)


def test_ratios_compare_measurements_of_the_same_turn(load):
    load("train_step")
    common = sys.modules["common"]
    assert common.ratios([2.0, 6.0, 9.0], [1.0, 2.0, 9.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_paper_run_reads_the_speeds_that_fit_prints(load):
    watch = Stopwatch(0)
    with watch:
        pass
    speeds = load("paper_run").read_speeds(f"pretrain: 100%|####| 20/20\ntrain: {watch.report(5)}\n")
    assert speeds.keys() == {"train"} and speeds["train"].keys() == {"steps_a_second", "waiting_for_data"}
    line = "train: 2.31 steps a second with validation and saving, 3.1% of the time waiting for data; the first step"
    assert load("paper_run").read_speeds(line) == {"train": {"steps_a_second": 2.31, "waiting_for_data": 3.1}}


@pytest.mark.parametrize(
    ("name", "arguments"),
    (
        ("train_step", ("--weights", "random", "--vgg-file", "vgg.mat")),
        ("paper_run", ("--out", "out", "--quick", "--vgg-file", "vgg.mat")),
        ("selection", ()),
    ),
)
def test_options_that_do_not_fit_are_refused(load, name, arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_main(load, monkeypatch, name, *arguments)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err


def write_ranking(folder: Path, columns: str, *rows: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    heading = f"rank,checkpoint,step,{columns}"
    (folder / "ranking.csv").write_text("\n".join(("# data: 3 files", heading, *rows)) + "\n")


def test_selection_compares_both_rankings(load, monkeypatch, tmp_path, capsys):
    """Without pairs, step 20 looks better; by PSNR, step 10 is 2 dB better."""
    write_ranking(tmp_path / "scores", "psnr,lpips", "1,step_10,10,22.0,0.3", "2,step_20,20,20.0,0.4")
    columns = "unpaired,texture,semantics,color,content"
    unpaired = tmp_path / "scores" / "unpaired"
    write_ranking(unpaired, columns, "1,step_20,20,1,1,1,1,1", "2,step_10,10,2,2,2,2,2")
    run_main(load, monkeypatch, "selection", tmp_path)
    printed = capsys.readouterr().out
    assert "2 checkpoints, 20.00 to 22.00 dB, the last 20.00 dB" in printed
    assert printed.count("its choice loses 2.00 dB, LPIPS 0.100") == 5 and "PSNR -1.00" in printed


# --- ablations -------------------------------------------------------------------------------------------------------

TABLES = {"table3": 4, "table4": 6}


@pytest.mark.parametrize("name", TABLES)
def test_ablations_prints_a_command_that_fit_accepts_for_each_row_and_seed(load, monkeypatch, capsys, name):
    options = ("--seeds", "3", "4", "--", "fujifilm-efficient", "--train.steps", "7", "--init", "pretrained-{seed}.pt")
    run_main(load, monkeypatch, "ablations", name, *options)
    lines, names = capsys.readouterr().out.splitlines(), set()
    for line in lines:
        train, score = (shlex.split(part) for part in line.split(" && "))
        config, resume = fit.parse(train[2:])
        assert train[:2] == ["python", "fit.py"] and resume and config.train.steps == 7
        assert config.init == f"pretrained-{config.seed}.pt" and config.seed in (3, 4)
        names.add((config.run, config.train.texture_critics, config.data.demosaic, config.train.beta1))
        assert score[:3] == ["python", "inference.py", "7"] and config.run in score
    assert len(lines) == len(names) == 2 * TABLES[name]


def test_ablations_tables_the_last_checkpoints_scores(load, monkeypatch, capsys, tmp_path):
    module = load("ablations")
    for seed, psnr in ((0, 20.0), (1, 21.0)):
        folder = tmp_path / module.run_name("table4", "lin0 lin3", seed)
        for step in (100, 200):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            (folder / "checkpoints" / f"step_{step:07d}.pt").touch()
            mean = {"psnr": psnr + step / 100, "ssim": 0.5, "lpips": 0.25}
            header = {"sha256": hashlib.sha256(b"").hexdigest()}
            Table(header, tuple(mean), {}, mean).write(folder / "scores" / f"step_{step:07d}.csv")
    options = ("--rows", "lin0 lin3", "--seeds", "0", "1", "--results", "--runs", tmp_path)
    run_main(load, monkeypatch, "ablations", "table4", *options)
    last = "| lin0 lin3 | 22.50 (22.00, 23.00) | 0.5000 (0.5000, 0.5000) | 0.2500 (0.2500, 0.2500) |"
    assert capsys.readouterr().out.splitlines()[-1] == last
    with pytest.raises(UserError, match="has no scored checkpoint"):
        run_main(load, monkeypatch, "ablations", "table3", "--results", "--runs", tmp_path)
    (folder / "checkpoints" / "step_0000200.pt").write_text("another")
    with pytest.raises(UserError, match="step_0000200.pt has changed since it was scored"):
        run_main(load, monkeypatch, "ablations", "table4", *options)


def test_health_prints_signs_and_alarms_of_a_run(load, monkeypatch, cheap_config, restored, capsys):
    folder = fit.train(cheap_config)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"stage": "train", "step": 9, "health/mesh": 4.0}\n' * 3)
    run_main(load, monkeypatch, "health", folder, "--checkpoints", 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("step_")] == ["step_0000001", "step_0000002"]
    assert "health/cast" in lines[-2] and lines[-1].startswith("alarm: step 9 of train: the images have a mesh")


def test_selection_needs_both_rankings(load, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="needs both rankings"):
        run_main(load, monkeypatch, "selection", tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_lists_the_options(load, name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_main(load, monkeypatch, name, "--help")
    printed = capsys.readouterr().out
    assert end.value.code == 0 and ("--json" in printed or name in WITHOUT_JSON)


def test_metrics_compares_each_measure_with_its_former_way(load, monkeypatch, tmp_path, capsys):
    size = ("--device", "cpu", "--size", 170, 181, "--repeats", 1)
    run_main(load, monkeypatch, "metrics", *size, "--measures", "psnr", "ssim", "ms_ssim", "--json", tmp_path / "out")
    figures = json.loads((tmp_path / "out").read_text())["measures"]
    assert figures["ssim"]["former"]["score"] == pytest.approx(figures["ssim"]["ours"]["score"], abs=1e-6)
    assert figures["ms_ssim"]["ours"]["times_as_fast"]["median"] > 0 and "former" not in figures["psnr"]
    assert "MiB added" in capsys.readouterr().out


def test_develop_times_libraw_and_both_ways_of_ours(load, monkeypatch, tmp_path, capsys):
    benchmark = load("develop")
    monkeypatch.setattr(benchmark, "SIZES", {"12": (64, 96)})
    monkeypatch.setattr(
        sys, "argv", ["develop.py", "--sizes", "12", "--repeats", "1", "--files", "2", "--device", "cpu"]
    )
    sys.argv += ["--json", str(tmp_path / "figures.json")]
    benchmark.main()
    found = json.loads((tmp_path / "figures.json").read_text())["sizes"]["12"]
    assert found["LibRaw"]["times_as_fast_as_libraw"] == 1 and 100 < found["peak_mib"] < 4000
    assert "this repository, overlapping" in capsys.readouterr().out


def test_map_raw_times_each_map_from_file_to_file(load, monkeypatch, tmp_path, capsys):
    benchmark = load("map_raw")
    monkeypatch.setattr(benchmark, "SIZES", {"12": (64, 96)})
    monkeypatch.setattr(benchmark, "maps_in", lambda folder, maps=benchmark.maps_in: dict([*maps(folder).items()][:1]))
    monkeypatch.setattr(sys, "argv", ["map_raw.py", "--repeats", "1", "--json", str(tmp_path / "figures.json")])
    benchmark.main()
    found = json.loads((tmp_path / "figures.json").read_text())["sizes"]["12"]
    assert found.keys() == {"closed form"}
    assert all(100 < each["peak_mib"] < 4000 and each["median"] > 0 for each in found.values())
    assert "12 megapixels" in capsys.readouterr().out
