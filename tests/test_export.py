"""The command export.py: whole exports, what it says of them, and what it refuses."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import export as script
import storage
from errors import run_cli
from exporting import packages, targets
from exporting.checks import BOUNDS, Bound
from models import build_model
from training.checkpoint import save_generator

from .dng import dng

ROOT = Path(script.__file__).parent
SIZE = "--size=64x48"
MOSAIC = np.random.default_rng(0).integers(64, 900, (64, 96)).astype(np.uint16)


@pytest.fixture
def needs_packages():
    missing = [name for modules in packages.PACKAGES.values() for name in modules if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} ({packages.INSTALL})")


def read(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text())


def test_a_run_is_exported_compared_and_described(needs_packages, make_run, call, tmp_path):
    run, out = make_run(count=2), tmp_path / "phone"
    options = ("--run=tiny", f"--runs={run.parent}", "--step=20", "-o", out, SIZE)
    status, output = call(script, *options, "--precision", "fp32", "int8")
    assert status == 0, output
    assert "4 files" not in output and "compared with PyTorch on 3 val mosaics of the run tiny" in output
    told = read(out)
    assert {"step_0000020.pt", "tiny", "efficient"} == {told["checkpoint"], told["run"], told["model"]}
    assert told["sha256"] == storage.sha256_of(run / "checkpoints" / "step_0000020.pt")
    assert told["sensor"]["cfa"] == "rggb" and told["packed_channels"]["R"] == [0, 0] and told["calibrated_on"] == 4
    names = {"model.onnx", "model_int8.onnx", "model.tflite", "model_none.tflite"}
    names |= {"model_int8.tflite", "model_none_int8.tflite"}
    assert {file["file"] for file in told["files"]} == names
    assert {path.name for path in out.iterdir()} == names | {"export.json"}
    for file in told["files"]:
        path = out / file["file"]
        assert file["sha256"] == storage.sha256_of(path) and file["bytes"] == path.stat().st_size
        assert file["milliseconds"] > 0 and file["operators"]
        if file["mosaic_size"] == "any":
            assert file["psnr"] == pytest.approx(file["psnr_of_pytorch"], abs=0.5)  # 64x64 validation pairs
        else:
            assert file["mosaic_size"] == [64, 48]
    assert str(tmp_path) not in (out / "export.json").read_text()

    before = (out / "model.onnx").read_bytes()
    status, output = call(script, *options, "--to", "tflite")
    assert status == 2 and "files of another export (model.onnx, model_int8.onnx" in output
    assert (out / "model.onnx").read_bytes() == before


def test_own_mosaics_and_ground_truth(needs_packages, make_files, call, tmp_path):
    weights, raws, photos = make_files()
    status, output = call(
        script, "--checkpoint", weights, "-o", tmp_path / "out", "--to=tflite", "--precision", "int8", SIZE,
        "--images", raws, "--targets", photos, "--calibrate", raws,
    )  # fmt: skip
    assert status == 0, output
    fixed, dynamic = read(tmp_path / "out")["files"]
    assert fixed["psnr"] == pytest.approx(fixed["psnr_of_pytorch"], abs=0.5) and fixed["psnr"] == dynamic["psnr"]
    assert read(tmp_path / "out")["run"] is None and "2 mosaics of --images" in output


def test_a_model_that_only_onnx_holds(needs_packages, make_files, call, tmp_path):
    weights, *_ = make_files("efficient-context")
    options = ("--checkpoint", weights, "-o", tmp_path / "out", SIZE)
    status, output = call(script, *options, "--to", "onnx", "tflite")
    assert status == 2 and "use --to onnx" in output and not (tmp_path / "out").exists()
    status, output = call(script, *options, "--check-gpu")
    assert status == 2 and "--check-gpu is for TFLite" in output
    status, output = call(script, *options, "--precision", "fp32", "--raw-input", "normalised")
    assert status == 0 and "3 synthetic mosaics" in output, output
    told = read(tmp_path / "out")
    assert [file["file"] for file in told["files"]] == ["model.onnx"]
    assert told["inputs"].keys() == {"raw", "context"}


def test_without_other_mosaics_those_of_the_calibration_are_compared(needs_packages, make_files, call, tmp_path):
    weights, raws, _ = make_files()
    options = ("--checkpoint", weights, "-o", tmp_path / "out", "--to=tflite", "--precision=int8", SIZE)
    status, output = call(script, *options, "--calibrate", raws)
    assert status == 0 and "2 mosaics of --calibrate" in output, output


def test_a_file_that_differs_leaves_nothing_behind(needs_packages, make_files, call, tmp_path, monkeypatch):
    weights, *_ = make_files()
    monkeypatch.setitem(BOUNDS, "fp16", Bound(psnr=200, largest=1e-9))
    status, output = call(script, "--checkpoint", weights, "-o", tmp_path / "out", "--to=tflite", SIZE)
    assert status == 2 and "model_fp16.tflite differs too much" in output
    assert not (tmp_path / "out").exists()


def test_a_wrong_graph_is_noticed(needs_packages, make_files, call, tmp_path, monkeypatch):
    weights, *_ = make_files()
    build = targets.TARGETS["tflite"]

    def with_other_levels(source, *rest):
        other = replace(source.sensor, black_level=(40.0, 60.0, 61.0, 62.0))
        return build(replace(source, sensor=other), *rest)

    monkeypatch.setitem(targets.TARGETS, "tflite", with_other_levels)
    status, output = call(script, "--checkpoint", weights, "-o", tmp_path / "out", "--to=tflite", SIZE)
    assert status == 2 and "model.tflite differs too much" in output


def test_a_normalised_model_says_who_applies_the_gains(needs_packages, call, tmp_path):
    torch.manual_seed(0)
    description = {"model": "efficient", "normalise": "gray_world"}
    save_generator(tmp_path / "step_0000001.pt", build_model("efficient"), 1, description)
    options = ("--checkpoint", tmp_path / "step_0000001.pt", "-o", tmp_path / "out", "--to=tflite", SIZE)
    status, output = call(script, *options, "--precision=fp32")
    assert status == 0 and "note: the model was trained with --data.normalise gray_world" in output, output
    assert read(tmp_path / "out")["normalisation"] == "gray_world"


def test_mosaics_below_the_networks_least_size_are_refused(make_files, call, tmp_path):
    _, raws, _ = make_files()
    weights = tmp_path / "step_0000001.pt"
    save_generator(weights, build_model("microisp"), 1, {"model": "microisp"})
    options = ("--checkpoint", weights, "-o", tmp_path / "out")
    status, output = call(script, *options, SIZE)
    assert status == 2 and "--size is 64x48, but microisp needs mosaics of at least 158 pixels a side" in output
    status, output = call(script, *options, "--images", raws)
    assert status == 2 and "pixels a side" in output and "at least 158" in output
    status, output = call(script, *options, "--to", "tflite")
    assert status == 2 and "--to tflite is for Efficient and Robust ISP only, not for microisp: use --to onnx" in output
    assert not (tmp_path / "out").exists()


def test_missing_packages_end_with_the_command(make_files, call, tmp_path, monkeypatch):
    weights, *_ = make_files()
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    status, output = call(script, "--checkpoint", weights, "-o", tmp_path / "out")
    assert status == 2 and "pip install -r requirements-export.txt" in output and not (tmp_path / "out").exists()


def phone_files(content: bytes) -> list[tuple[targets.PhoneFile, dict]]:
    """Two files of an export, with their figures."""
    kinds = (("model.onnx", "onnx"), ("model.tflite", "tflite"))
    return [(targets.PhoneFile(name, target, "fp32", None, content), {}) for name, target in kinds]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("written", (0, 1, 2))
def test_a_full_disk_leaves_the_export_before_as_it_was(tmp_path, monkeypatch, capsys, written):
    """The disk is full after so many of the three files."""
    out, calls, fsync = tmp_path / "out", [], os.fsync
    script.write(out, phone_files(b"before"), {"files": "before"})
    before = contents(out)

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(os, "fsync", full)
        run_cli(lambda: script.write(out, phone_files(b"after"), {"files": "after"}))
    printed = capsys.readouterr().err
    assert end.value.code == 2 and f"cannot read or write {out}/" in printed and "No space left on device" in printed
    assert contents(out) == before
    script.write(out, phone_files(b"after"), {"files": "after"})
    assert read(out) == {"files": "after"} and set(contents(out)) == set(before)
    assert (out / "model.onnx").read_bytes() == (out / "model.tflite").read_bytes() == b"after"


@pytest.mark.parametrize("last", ("model.onnx", "model.tflite", "export.json"))
def test_an_interrupted_export_has_no_description(tmp_path, monkeypatch, last):
    """A kill while the files are put in their places: some may be of the export before."""
    replace_file = os.replace
    script.write(tmp_path, phone_files(b"before"), {"files": "before"})

    def killed(source: Path, target: Path) -> None:
        if target.name == last:
            raise KeyboardInterrupt
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        script.write(tmp_path, phone_files(b"after"), {"files": "after"})
    assert set(contents(tmp_path)) == {"model.onnx", "model.tflite"}


def test_int8_needs_mosaics(make_files, call, tmp_path):
    weights, *_ = make_files()
    status, output = call(script, "--checkpoint", weights, "-o", tmp_path / "out", "--precision", "int8")
    assert status == 2 and "--calibrate DIR" in output


@pytest.mark.parametrize("option", ("--images", "--calibrate"))
@pytest.mark.parametrize(
    "name, content, sentence",
    (
        ("0.dng", dng(MOSAIC, cfa="gbrg"), "0.dng has the CFA order gbrg, not rggb"),
        ("0.raw", bytes(2 * 64 * 96), "0.raw has no header"),
        ("0.pgm", b"P5 96 64 4095 " + bytes([9]) * 2 * 64 * 96, "outside 0 to the white level 1023"),
    ),
)
def test_mosaics_of_another_camera_are_refused_in_options_of_this_command(
    make_files, call, tmp_path, option, name, content, sentence
):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / name).write_bytes(content)
    weights, own, _ = make_files()
    folders = {"--images": own, "--calibrate": own} | {option: tmp_path / "others"}
    given = ("--checkpoint", weights, "-o", tmp_path / "out", "--precision", "int8")
    status, output = call(script, *given, *(part for item in folders.items() for part in item))
    assert status == 2 and "--data." not in output and "test_model.py" not in output
    assert sentence in output
    assert ": --images and --calibrate take mosaics as the model's camera records them, CFA rggb, black " in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, sentence",
    (
        (["--checkpoint", "x"], "-o is missing"),
        (["-o", ""], "--output is empty"),
        (["-o", "x", "--checkpoint", "y", "--run", "z"], "--run needs a run, not --checkpoint"),
        (["-o", "x", "--checkpoint", "y", "--step", "3"], "--step needs a run"),
        (["-o", "x", "--targets", "y"], "--targets needs --images"),
        (["-o", "x", "--calibrate", "y"], "--calibrate needs --precision int8"),
        (["-o", "x", "--to", "onnx", "--check-gpu"], "--check-gpu needs --to tflite"),
        (["-o", "x", "--to", "coreml"], "invalid choice"),
        (["-o", "x", "--size", "1080x1921"], "no size of a mosaic"),
        (["-o", "x", "--size", "big"], "no size of a mosaic"),
        (["-o", "x", "--score", "24", "10"], "--output needs an export, not --score"),
        (["-o", "x", "--score-formula", "2021"], "--score-formula needs --score"),
        (["--score", "24"], "expected 2 arguments"),
    ),
)
def test_options_that_do_not_fit(options, sentence, call):
    status, output = call(script, *options)
    assert status == 2 and sentence in output


def test_the_score_needs_no_model_and_no_package(call, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert call(script, "--score", 24, 100, "--score-formula", "2021") == (0, "score of 2021: 26\n")
    assert call(script, "--score", 5, 16, "--score-constant", 2) == (0, "score of 2022: 32\n")
    status, output = call(script, "--score", 24, 0)
    assert status == 2 and "a latency above 0 ms" in output


def test_the_command_starts_without_the_packages():
    code = "import sys; sys.modules.update(onnx=None, onnxruntime=None, ai_edge_litert=None); import export"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
