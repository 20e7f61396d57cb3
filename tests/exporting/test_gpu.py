"""The GPU delegate's check: it tells a file that it takes whole from another one, and names missing parts."""

import subprocess

import pytest

from errors import UserError
from exporting import gpu
from exporting.targets import PhoneFile, build_tflite
from exporting.tflite_file import TFLiteWriter

FILE = PhoneFile("model.tflite", "tflite", "fp32", (8, 8), b"")


@pytest.fixture
def program(needs):
    """LiteRT's program, where a GPU delegate starts."""
    needs("tflite")
    try:
        return gpu.find_program()
    except UserError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("precision", ("fp32", "fp16", "int8"))
def test_every_operator_is_taken(precision, program, make_source, make_mosaic):
    source = make_source()
    for file in build_tflite(source, precision, (64, 64), [make_mosaic(16, 16, source.sensor)]):
        assert gpu.is_fully_delegated(file, program)


def test_a_file_that_is_not_taken_whole(program):
    file = TFLiteWriter((8, 8))
    x, result = file.tensor("raw", 4), file.tensor("image", 4)
    file.operator("ATAN2", [x, x], result)
    content = file.finish([x], [result])
    assert not gpu.is_fully_delegated(PhoneFile("model.tflite", "tflite", "fp32", (8, 8), content), program)


def test_missing_parts_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.delenv("VK_ICD_FILENAMES", raising=False)
    with pytest.raises(UserError, match="litert-benchmark"):
        gpu.find_program()
    (tmp_path / gpu.PROGRAM).touch()
    with pytest.raises(UserError, match="VK_ICD_FILENAMES"):
        gpu.find_program()
    monkeypatch.setenv("VK_ICD_FILENAMES", "driver.json")
    assert gpu.find_program() == tmp_path / gpu.PROGRAM


@pytest.mark.parametrize(
    "status, printed, taken",
    ((0, "Fully accelerated: True", True), (1, "not fully delegated", False), (0, "Fully accelerated: False", False)),
)
def test_what_the_program_says(status, printed, taken, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], status, printed, ""))
    assert gpu.is_fully_delegated(FILE, tmp_path) is taken


def test_a_machine_without_a_gpu_is_not_taken_for_a_file_that_fails(monkeypatch, tmp_path):
    answer = subprocess.CompletedProcess([], 1, "", "INTERNAL: No adapters found")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(UserError, match="found no GPU"):
        gpu.is_fully_delegated(FILE, tmp_path)


def test_a_program_that_hangs(monkeypatch, tmp_path):
    def hang(*_, **__):
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(UserError, match="did not end"):
        gpu.is_fully_delegated(FILE, tmp_path)
