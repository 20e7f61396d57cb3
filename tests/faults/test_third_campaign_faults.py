"""Faults that a third campaign of bad input found."""

import errno
import json
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import fit
import inference
import storage
from config import open_run
from errors import UserError
from evaluation.charts import Line, draw
from evaluation.evaluators import UnpairedEvaluator
from evaluation.launchers import Session, Slurm
from evaluation.rendering import _noted
from evaluation.tables import read_table
from pretrained import zoo
from pretrained.backbones import load_weights
from tests.faults.commands import options, refused
from training.distributed import join
from training.folder import claim_folder, read_state, save_state
from training.log import RunLog

from ..fit_runs import vary


def test_nothing_is_written_through_a_link_in_a_foreign_folder(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".a.partial.json").symlink_to(tmp_path / "precious")
    storage.write_json(tmp_path / "a.json", {})
    assert (tmp_path / "precious").read_text() == "mine" and not (tmp_path / "a.json").is_symlink()


def test_a_checkpoint_with_compressed_parts_is_refused(tmp_path):
    """A few megabytes could fill the memory."""
    storage.save(tmp_path / "a.pt", {"weight": torch.zeros(100_000)})
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="b.pt was not written by torch.save: its parts are compressed"):
        storage.load(tmp_path / "b.pt")


@pytest.mark.parametrize("place", (100, 30_000, 65_000, 131_000))
def test_a_change_anywhere_in_an_uncompressed_file_changes_its_fingerprint(tmp_path, place):
    content = bytearray(131_072)
    (tmp_path / "a").write_bytes(content)
    content[place : place + 12_000] = b"x" * len(content[place : place + 12_000])
    (tmp_path / "b").write_bytes(content)
    assert storage.fingerprint(tmp_path / "a") != storage.fingerprint(tmp_path / "b")


@pytest.mark.parametrize("lock", (storage.lock, lambda path: storage.claim(path, ["a"])))
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, lock):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(UserError, match="has no locks"), lock(tmp_path / "file"):
        pass


def test_a_pipe_in_the_place_of_a_lock_is_not_waited_for(tmp_path, quick):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match="is not a file"), storage.lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    (
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "no process can be started"),
        (RuntimeError("can't start new thread"), "no more threads can be started here"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "the shared memory (/dev/shm) is"),
        (OSError(errno.ESTALE, "Stale file handle", "x.png"), "cannot read or write x.png: Stale file handle"),
    ),
)
def test_limits_of_a_machine_end_in_a_sentence(call, monkeypatch, error, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(inference, "parse", fail)
    assert sentence in refused(call, inference)


@pytest.mark.parametrize("name", ("kept.txt", "train_0.png", "step_0000010.pt"))
def test_a_folder_of_something_else_is_not_taken_for_a_run(tmp_path, name):
    (tmp_path / name).touch()
    sentence = f"holds something else than a run, such as {name}"
    with pytest.raises(UserError, match=sentence), claim_folder(tmp_path, resume=False):
        pass


def test_a_copy_with_hard_links_keeps_its_own_log(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    log = RunLog(tmp_path / "one")
    log.begin({"a": 1})
    mark = log.mark()
    log.close()
    os.link(tmp_path / "one" / "log.jsonl", tmp_path / "two" / "log.jsonl")
    resumed = RunLog(tmp_path / "two", *mark)
    resumed.write("train", 1, 1, {"x": 1.0})
    resumed.close()
    assert len((tmp_path / "one" / "log.jsonl").read_text().splitlines()) == 1
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("changes", ({"psnr": []}, {"step": 2.5}, {"log": None}, {"rng": 0}, {"weights": None}))
def test_a_state_of_wrong_types_is_refused_though_its_checksum_is_right(tmp_path, changes):
    state = {"stage": 0, "step": 1, "psnr": {}, "weights": {}, "data": "", "log": (0, ""), "rng": torch.zeros(1)}
    save_state(tmp_path, state | {"config": {}, "trainer": {}})
    read_state(tmp_path)
    save_state(tmp_path, state | {"config": {}, "trainer": {}} | changes)
    with pytest.raises(UserError, match="holds no state of a run, though its checksum is right"):
        read_state(tmp_path)


def test_what_torchrun_left_in_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="TORCHELASTIC_RUN_ID is set, but not all else that torchrun sets"):
        join("cpu")


def test_a_moved_dataset_of_two_folders_is_not_given_by_a_root(make_run):
    run = make_run(count=1)
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["data"] |= {"layout": "folders", "root": "", "raw": "a", "photos": "b"}
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no root: edit data.raw and data.photos"):
        open_run(str(run.parent), run.name, "elsewhere")


def test_no_demo_is_made_at_a_mistyped_data_root(make_run, tmp_path):
    run = make_run(count=1)
    config = json.loads((run / "config.json").read_text())
    config["data"]["demo"] = True
    (run / "config.json").write_text(json.dumps(config))
    assert not open_run(str(run.parent), run.name, str(tmp_path / "typo"))[1].data.demo


@pytest.mark.parametrize("option", ("--checkpoint", "--data-root", "--run", "--runs"))
def test_empty_values_are_refused(call, option):
    which = () if option == "--checkpoint" else ("--all",)
    status, output = call(inference, *which, option, "")
    assert status == 2 and f"{option} is empty: give it a value, or leave it out" in output


def test_a_checkpoint_without_a_date_has_an_identity(make_run, call):
    run = make_run(count=2)
    for path in (run / "checkpoints").iterdir():
        os.utime(path, ns=(0, 0))
    assert call(inference, "--all", *options(run))[0] == 0
    first, second = sorted((run / "checkpoints").iterdir())
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=(0, 0))
    assert "1 of them had before" in call(inference, "--all", *options(run))[1]


def test_scores_on_other_data_are_replaced_with_a_note(make_run, call, tmp_path):
    run = make_run(count=1)
    assert call(inference, "--all", *options(run))[0] == 0
    root = json.loads((run / "config.json").read_text())["data"]["root"]
    shutil.copytree(root, tmp_path / "other")
    photo = next((tmp_path / "other" / "val" / "fujifilm").iterdir())
    Image.open(photo).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photo)
    output = call(inference, "--all", *options(run), "--data-root", tmp_path / "other")[1]
    assert "note: scores on other data in" in output


def test_a_table_that_cannot_be_read_is_not_left_out_of_a_ranking(make_run, call, monkeypatch):
    run = make_run(count=2)
    assert call(inference, "--all", *options(run))[0] == 0

    def fail(path, *_, **__):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("pathlib.Path.read_text", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read_table(sorted((run / "scores").glob("step_*"))[0])


def test_a_unit_that_is_not_positive_is_refused():
    """The unbiased KID of two sets of one distribution may be negative, and would turn the ranking around."""
    evaluator = object.__new__(UnpairedEvaluator)
    evaluator.evaluate = lambda *_: {}
    evaluator.prepare = evaluator.reference = lambda *_: None
    evaluator.keep = lambda name, compute: compute()
    evaluator._distances = lambda _: {"texture": 0.5, "semantics": -0.01, "color": 0.2}
    with pytest.raises(UserError, match="cannot be ranked without pairs here: in semantics"):
        evaluator.calibrate([None])


@pytest.mark.parametrize(
    ("printed", "expected"),
    (("123", ("123", [])), ("Hello\n123;big", ("123", ["-M", "big"])), ("", None), ("ok", None)),
)
def test_the_number_of_a_job_array_is_read(monkeypatch, printed, expected):
    done = subprocess.CompletedProcess([], 0, printed.encode(), b"")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    launcher = Slurm(("--comment=two words",))
    assert "'--comment=two words'" in launcher.batch_script([])
    if expected is None:
        with pytest.raises(UserError, match="sbatch does not tell the number"):
            launcher.start([])
    else:
        launcher.start([])
        assert (launcher.job, launcher.cluster) == expected


@pytest.mark.parametrize(
    ("done", "alive"),
    (
        (subprocess.CompletedProcess([], 0, "123_0 RUNNING", ""), True),
        (subprocess.CompletedProcess([], 0, "", ""), False),
        (subprocess.CompletedProcess([], 1, "", "slurm_load_jobs error: Invalid job id specified"), False),
        (subprocess.CompletedProcess([], 1, "", "Unable to contact slurm controller"), True),
    ),
)
def test_a_job_whose_controller_cannot_be_reached_is_not_taken_for_killed(monkeypatch, tmp_path, done, alive):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    launcher = Slurm()
    launcher.job = "123"
    assert launcher.alive(Session("s", "0", (), {}, tmp_path)) == alive


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_frozen_weights_that_are_not_finite_are_refused(value, tmp_path):
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="x.pth is damaged: weight has values that are not finite"):
        load_weights(network, {"weight": torch.full((2, 2), value), "bias": torch.zeros(2)}, "x.pth")
    with pytest.raises(UserError, match="weight is of type torch.int8"):
        load_weights(network, {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.zeros(2)}, "x.pth")


def test_a_notebooks_drawing_backend_is_not_needed(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    line = Line("x", np.array([1.0, 2.0]), np.array([1.0, 2.0]), starts={"pretrain": 0, r"$\frac$": 1})
    assert draw("title", [line], False).startswith("<svg")


@pytest.mark.parametrize("value", (torch.tensor([1, 2]), "1", 1.0))
def test_a_format_that_is_no_number_is_refused(make_files, tmp_path, value):
    name, state = zoo.open_generator(str(make_files()[0]))
    storage.save(tmp_path / "a.pt", {"format": value, "model": name, "generator": state})
    with pytest.raises(UserError, match="a.pt has the format"):
        zoo.open_checkpoint(str(tmp_path / "a.pt"))


def test_the_list_of_an_earlier_test_may_not_be_a_pipe(tmp_path, quick):
    os.mkfifo(tmp_path / ".test_model.json")
    assert _noted(tmp_path / ".test_model.json") == set()


@pytest.mark.usefixtures("restored", "cached_networks")
def test_files_that_a_run_was_trained_on_are_told_when_they_are_scored(cheap_config, call, tmp_path):
    """Val is drawn from train anew where its folder is missing, as on another machine."""
    shutil.copytree(cheap_config.data.root, tmp_path / "data")
    run = fit.train(vary(cheap_config, data={"root": str(tmp_path / "data")}))
    trained = json.loads((run / "data.json").read_text())["train"]
    assert len(trained) == len(list((tmp_path / "data" / "train").glob("*/*")))
    assert "was trained on" not in call(inference, "--all", *options(run))[1]
    shutil.rmtree(tmp_path / "data" / "val")
    config = json.loads((run / "config.json").read_text())
    config["data"]["val_count"] = 1
    (run / "config.json").write_text(json.dumps(config))
    assert "was trained on 1 of the 1 mosaics that are scored" in call(inference, "--all", *options(run))[1]


def test_black_levels_that_stay_those_of_another_bit_depth_are_told(capsys):
    for black, told in (("", True), ("--data.black-level 240 240 240 240", False)):
        fit.parse(["fujifilm-efficient", "--data.root", "x", "--data.white-level", "4095", *black.split()])
        assert ("the black levels stay (58.0, 60.0, 61.0, 62.0)" in capsys.readouterr().err) == told
