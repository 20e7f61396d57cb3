"""`python -m data.simulate`: impossible options are refused, nothing is lost, and two processes do not mix files."""

from pathlib import Path

import pytest

import storage
from data import simulate
from errors import run_cli

from .bad_files import refuse, rows

pytestmark = pytest.mark.usefixtures("quick")

# --- options ---------------------------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
BAD_OPTIONS = (
    ("patch 0", dict(patch=0), "patch is 0, but must be even and positive"),
    ("stride 0", dict(stride=0), "stride must be at least 1"),
    ("scale nan", dict(scales=(NAN,)), "scales must lie in"),
    ("scale inf", dict(scales=(INF,)), "scales must lie in"),
    ("no scale", dict(scales=()), "scales must lie in"),
    ("val -1", dict(val=-1), "val and test must not be negative"),
    ("shot nan", dict(shot=NAN), "shot noise is nan"),
    ("root as output", dict(out=Path("/")), "/ exists; give another folder"),
    ("photographs as output", dict(out=Path("photos")), "photos exists; give another folder"),
    ("below a file", dict(out=Path("photos/0.png/out")), "cannot create .*photos/0.png/out"),
)


@pytest.mark.parametrize("options, message", rows(BAD_OPTIONS))
@pytest.mark.parametrize("photos", ("photos", "demo"))
def test_an_impossible_option_of_the_simulation_is_refused(pairs, tmp_path, monkeypatch, photos, options, message):
    monkeypatch.chdir(tmp_path)
    if photos == "demo" and {"stride", "scales", "val"} & options.keys():
        message = "leave these options out"
    refuse(message, simulate.simulate, **{"photos": photos, "out": Path("out"), "patch": 16, **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "raws"]


# --- simulated datasets: nothing lost, nothing mixed -----------------------------------------------------------------


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make(photos: Path, out: Path) -> None:
    simulate.simulate(str(photos), out, patch=16, val=1, test=1)


@pytest.mark.parametrize("name", ("out.partial", ".out.partial"))
def test_a_folder_of_the_user_with_the_name_of_a_temporary_one_is_kept(pairs, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("ten years")
    if name.startswith("."):
        refuse(f"{name} is in the way, and not of this command: move it", make, pairs[1], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    else:
        make(pairs[1], tmp_path / "out")
    assert (tmp_path / name / "thesis.txt").read_text() == "ten years"


def test_what_a_killed_process_left_is_replaced(pairs, tmp_path):
    (tmp_path / ".out.partial" / "train").mkdir(parents=True)
    (tmp_path / ".out.partial" / "camera.json").write_text("{}")
    (tmp_path / ".out.partial" / "train" / "foreign.png").write_bytes(b"half")
    make(pairs[1], tmp_path / "out")
    assert not (tmp_path / ".out.partial").exists() and not list((tmp_path / "out").rglob("foreign.png"))


def test_a_second_process_that_writes_the_same_dataset_is_refused(pairs, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "camera.json").write_text("of the first process")
    with storage.lock(tmp_path / ".out.lock"):
        refuse("another process is writing .*out: wait for it, or give another", make, pairs[1], tmp_path / "out")
    assert contents(partial) == {partial / "camera.json": b"of the first process"} and not (tmp_path / "out").exists()


def test_a_dataset_that_another_process_finished_meanwhile_is_kept(pairs, tmp_path, monkeypatch):
    survey = simulate.survey

    def meanwhile(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "camera.json").write_text("of the other process")
        return survey(*arguments)

    monkeypatch.setattr(simulate, "survey", meanwhile)
    refuse("out exists; give another folder", make, pairs[1], tmp_path / "out")
    assert contents(tmp_path / "out") == {tmp_path / "out" / "camera.json": b"of the other process"}


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_ends_with_status_2_and_one_line(pairs, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_cli(lambda: simulate.simulate(str(pairs[1]), tmp_path / "out", shot=INF))
    captured = capsys.readouterr()
    assert end.value.code == 2 and not captured.out
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
