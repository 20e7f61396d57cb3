"""The benchmark of ISPs across cameras: each row is trained and tested as its label says, once."""

import json

import pytest

from errors import UserError
from evaluation.tables import read_table

from .benchmark_runs import run_main, smooth_photos

NAMES = ("a-on-a", "a-on-b", "a-on-b-statistics", "a-statistics-on-b", "b-on-b")


@pytest.fixture
def benchmark(load, monkeypatch):
    """With small mosaics, and one map."""
    module = load("cross_camera")
    monkeypatch.setitem(module.make_dataset.__globals__, "PATCH", 64)
    monkeypatch.setattr(module, "ROWS", tuple(row for row in module.ROWS if row.method in ("", "statistics")))
    return module


@pytest.fixture
def photos(tmp_path):
    return smooth_photos(tmp_path, 12, (192, 128))


def test_rows_differ_by_camera_and_map_and_are_made_once(benchmark, monkeypatch, tmp_path, capsys, photos):
    options = (photos, "--out", tmp_path / "out", "--models", "efficient", "--seeds", 0, "--steps", 2)
    options += ("--measures", "psnr", "ssim")
    run_main(lambda _: benchmark, monkeypatch, "cross_camera", *options)
    printed = capsys.readouterr().out
    assert "| a, on b mapped to a (`--adapt`), statistics | 0 |" in printed and "| PSNR (dB) | SSIM |" in printed
    files = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "scores").glob("*/*.json")}
    assert set(files) == set(NAMES)
    assert len({found["means"]["psnr"] for found in files.values()}) == 5
    runs = {path.name: json.loads((path / "config.json").read_text()) for path in (tmp_path / "out/runs").glob("[!.]*")}
    assert set(runs) == {"efficient-a-0", "efficient-b-0", "efficient-a-statistics-0"}
    assert runs["efficient-a-statistics-0"]["data"]["map"].endswith("statistics-b.json")
    assert runs["efficient-a-0"]["data"]["raw"].endswith("/a") and runs["efficient-b-0"]["data"]["raw"].endswith("/b")
    tables = {name: read_table(tmp_path / f"out/tests/efficient-{name}-0/metrics.csv").header for name in NAMES}
    assert [name for name in NAMES if "mapped by" in tables[name]] == ["a-on-b-statistics"]
    assert tables["a-on-a"]["data"].endswith("paired/a") and tables["a-on-b"]["data"].endswith("paired/b")

    monkeypatch.setattr(benchmark, "train", lambda *_: pytest.fail("a finished row was trained again"))
    run_main(lambda _: benchmark, monkeypatch, "cross_camera", *options)
    with pytest.raises(UserError, match="a-on-a.json is of other settings"):
        run_main(lambda _: benchmark, monkeypatch, "cross_camera", *options[:-4], 3, "--measures", "psnr", "ssim")
