"""Damaged, foreign and edited files of a run, and settings that no machine can follow: one sentence, nothing lost.

A new case is a row of one of the tables: (what is wrong, how to make it, the expected sentence).
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fit
import storage
from config import Config, to_dict
from errors import UserError
from training.folder import read_state, save_state

from ..fit_runs import make_config, make_dataset, read_log, vary

pytestmark = pytest.mark.usefixtures("restored_module")

# Without critics and frozen networks: a step takes milliseconds.
LIGHT = {"mode": "paired", "mse": 1, "lpips": 0, "dists": 0, "content": 0}


def light_config(root: Path, runs: Path) -> Config:
    return vary(make_config(root, runs), train=LIGHT, pretrain={"content": 0})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, restored_module) -> Path:
    """The folder of a finished run, which lies in runs/ beside its dataset data/. Tests do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    return fit.train(light_config(make_dataset(folder / "data"), folder / "runs"))


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of the finished run and its dataset."""
    shutil.copytree(finished.parents[1], tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "tiny"


def resume(folder: Path, *options: str) -> Path:
    """Continue the run in `folder`, as the command does."""
    where = ["--runs", str(folder.parent), "--run", folder.name, "--data.root", str(folder.parents[1] / "data")]
    return fit.train(*fit.parse([*where, "--resume", *options]))


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a run, but for the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


# --- last.pt, config.json, log.jsonl and the dataset -----------------------------------------------------------------


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """last.pt after `change`, written by torch.save."""

    def edit(folder: Path) -> None:
        state = storage.load(folder / "last.pt")
        change(state)
        torch.save(state, folder / "last.pt")

    return edit


def saved(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """last.pt after `change`, as this framework would have written it."""

    def save(folder: Path) -> None:
        state = read_state(folder)
        change(state)
        save_state(folder, state)

    return save


def weights(change: Callable[[torch.Tensor], object]) -> Callable[[Path], None]:
    """last.pt after `change` of the generator's first weights."""
    return edited(lambda state: state["trainer"]["generator"].update({"conv1.bias": change(torch.ones(12))}))


def written(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A file of the run with other content, or with its own after a change."""

    def write(folder: Path) -> None:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))

    return write


def edit_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["train"]["lr"] = 0.25
    (folder / "config.json").write_text(json.dumps(config))


def rename_a_file(folder: Path) -> None:
    photos = folder.parents[1] / "data" / "val"
    for name in ("mediatek_raw", "fujifilm"):
        (photos / name / "10.png").rename(photos / name / "30.png")


def replace_a_file(folder: Path) -> None:
    shutil.copy(*(folder.parents[1] / "data" / "val" / "fujifilm" / name for name in ("10.png", "11.png")))


CHANGED = "last.pt is damaged or was changed .*put back a copy of it, or start another run"
UNREADABLE = "last.pt is not a readable checkpoint or weights file"
OTHER_LOG = "log.jsonl is not the log that last.pt continues.*or move the file away"
BAD_RUNS = (
    ("a weight is NaN", weights(lambda weight: weight * float("nan")), CHANGED),
    ("a weight of another shape", weights(lambda weight: weight[:3]), CHANGED),
    ("a weight of another type", weights(torch.Tensor.bool), CHANGED),
    ("a sparse weight", weights(torch.Tensor.to_sparse), CHANGED),
    ("a weight without values", weights(lambda weight: weight.to("meta")), CHANGED),
    ("a weight that is a string", weights(str), CHANGED),
    ("no generator", edited(lambda state: state["trainer"].pop("generator")), CHANGED),
    ("a list of parts", edited(lambda state: state.update(trainer=[1])), CHANGED),
    ("a rate that is a string", edited(lambda s: s["trainer"]["optimizer"]["param_groups"][0].update(lr="x")), CHANGED),
    ("a step that is edited", edited(lambda state: state.update(step=1)), CHANGED),
    ("a step that is a string", edited(lambda state: state.update(step="1")), CHANGED),
    ("no random state", edited(lambda state: state.pop("rng")), CHANGED),
    ("no checksum", edited(lambda state: state.pop("checksum")), CHANGED),
    ("stage -1", saved(lambda state: state.update(stage=-1)), "last.pt is at step 2 of stage 0, but this run has the"),
    (
        "step 1e9",
        saved(lambda state: state.update(step=10**9)),
        "is at step 1000000000 .* no fewer steps than are done",
    ),
    ("an empty dictionary", edited(dict.clear), "last.pt holds no state of a run"),
    ("a list", lambda folder: torch.save([1], folder / "last.pt"), "last.pt holds a list"),
    (
        "a checkpoint's file",
        lambda folder: shutil.copy(folder / "checkpoints" / "step_0000002.pt", folder / "last.pt"),
        "last.pt holds no state of a run: put the run's own last.pt there",
    ),
    ("an earlier version's", edited(lambda s: s.pop("format")), "was begun by an earlier version.*--run NAME.*--init"),
    ("a later version's", edited(lambda s: s.update(format=99)), "has the format 99, and this version .* reads 3"),
    ("a cut last.pt", written("last.pt", lambda content: content[:-100]), UNREADABLE),
    ("a web page as last.pt", written("last.pt", b"<!DOCTYPE html><html></html>"), UNREADABLE),
    ("an empty last.pt", written("last.pt", b""), UNREADABLE),
    (
        "another run's last.pt",
        saved(lambda state: state["config"]["train"].update(lr=0.25)),
        "a resumed run cannot change train.lr: .*--run NAME .train.lr was 0.25 and is 0.0005.",
    ),
    (
        "a config of a later version",
        saved(lambda state: state["config"].update(flavour=1)),
        "last.pt holds a config of another version .*unknown config key 'flavour'",
    ),
    ("an edited config.json", edit_config, "a resumed run cannot change train.lr: .*was 0.0005 and is 0.25"),
    ("a nested config.json", written("config.json", b"[" * 10**5), "config.json is not a valid config"),
    ("a config.json of bytes", written("config.json", b"\xff\xfe\x00"), "config.json is not a valid config"),
    ("a dataset of other names", rename_a_file, "the dataset is not the one that .*tiny was trained on so far"),
    ("a file of the dataset with other content", replace_a_file, "the dataset is not the one that .*tiny was trained"),
    ("a cut log", written("log.jsonl", lambda content: content[:-5]), OTHER_LOG),
    ("an empty log", written("log.jsonl", b""), OTHER_LOG),
    ("a log with zeros", written("log.jsonl", lambda content: content[:-9] + bytes(9)), OTHER_LOG),
)


@pytest.mark.parametrize(("damage", "sentence"), [row[1:] for row in BAD_RUNS], ids=[row[0] for row in BAD_RUNS])
def test_a_run_that_cannot_be_continued_is_refused_and_left_as_it_is(run, damage, sentence):
    damage(run)
    before = contents(run)
    with pytest.raises(UserError, match=sentence) as caught:
        resume(run)
    assert contents(run) == before
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def assert_continues(folder: Path) -> None:
    """The finished run is trained for one step more, in its folder."""
    assert resume(folder, "--train.steps", "3") == folder
    assert storage.load(folder / "last.pt")["step"] == 3
    assert json.loads((folder / "config.json").read_text())["run"] == folder.name


def test_a_run_can_be_renamed(run):
    assert_continues(run.rename(run.with_name("other")))
    assert not run.exists()


def test_a_run_can_be_moved_with_all_runs(run, monkeypatch):
    """Its config.json then names the former folder of runs, which is not used."""
    shutil.copytree(run.parent, run.parents[1] / "elsewhere" / "runs")
    monkeypatch.chdir(run.parents[1] / "elsewhere")
    before, options = contents(run), ["--run", "tiny", "--resume", "--data.root", str(run.parents[1] / "data")]
    assert fit.train(*fit.parse([*options, "--train.steps", "3"])) == Path("runs") / "tiny"
    assert storage.load(Path("runs") / "tiny" / "last.pt")["step"] == 3 and contents(run) == before


def test_a_run_whose_config_is_lost_continues_with_that_of_its_state(run):
    before = (run / "config.json").read_bytes()
    (run / "config.json").unlink()
    with pytest.raises(UserError, match="tiny exists: continue it with --resume"):
        fit.train(vary(light_config(run.parents[1] / "data", run.parent), seed=5))
    resume(run)
    now = json.loads((run / "config.json").read_text())
    assert now | {"runs": "", "data": {}} == json.loads(before) | {"runs": "", "data": {}}


def test_a_run_whose_log_is_lost_continues_with_a_new_one(run, capsys):
    (run / "log.jsonl").unlink()
    assert_continues(run)
    assert "has no log.jsonl; a new one begins with the next step" in capsys.readouterr().err
    assert [line["step"] for line in read_log(run, "train") if "loss/tv" in line] == [3]
    assert len(read_log(run, "start")) == 1


# --- a run that ended before it saved anything -----------------------------------------------------------------------


def test_a_run_that_saved_nothing_is_begun_anew_and_its_log_is_kept(run):
    for path in (run / "last.pt", run / "summary.json"):
        path.unlink()
    shutil.rmtree(run / "checkpoints")
    log = (run / "log.jsonl").read_bytes()
    config = vary(light_config(run.parents[1] / "data", run.parent), train={"lr": 1e-3})
    assert fit.train(config) == run
    assert json.loads((run / "config.json").read_text()) == to_dict(config)
    assert (run / "log.previous.jsonl").read_bytes() == log
    assert len(read_log(run, "start")) == 1


def test_checkpoints_of_other_settings_are_not_overwritten_by_beginning_again(run):
    (run / "last.pt").unlink()
    before = contents(run)
    with pytest.raises(UserError, match="tiny has no last.pt to continue from, only checkpoints.*train.lr"):
        resume(run, "--train.lr", "2e-3")
    assert contents(run) == before


def test_a_run_without_a_state_begins_anew_with_its_own_settings(run, capsys):
    """Not with those of the demo, whose data it would then train on."""
    before = json.loads((run / "config.json").read_text()) | {"runs": str(run.parent)}
    (run / "last.pt").unlink()
    config, _ = fit.parse(["--runs", str(run.parent), "--run", run.name, "--resume"])
    assert json.loads(json.dumps(to_dict(config))) == before
    assert "tiny has no last.pt to continue from: the run begins anew" in capsys.readouterr().err


# --- settings that no machine can follow -----------------------------------------------------------------------------

BAD_SETTINGS = (
    ("a huge batch", {"data": {"batch": 10**8}}, "batch of 100000000 patches .* needs .* GiB .*lower --data.batch"),
    ("a huge patch", {"data": {"patch": 2 * 10**6}}, "patches of 2000000 pixels needs .* lower .*--data.patch"),
    ("many workers", {"data": {"workers": 1000}}, "--data.workers 1000 starts too many processes for .* at most"),
    ("device meta", {"device": "meta"}, "device 'meta' cannot be used"),
    ("device cuda:99", {"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ("no device", {"device": ""}, "device '' cannot be used"),
)


@pytest.mark.parametrize(("parts", "sentence"), [row[1:] for row in BAD_SETTINGS], ids=[row[0] for row in BAD_SETTINGS])
def test_a_setting_that_no_machine_can_follow_is_refused_before_any_file_is_written(
    fit_dataset, tmp_path, parts, sentence
):
    with pytest.raises(UserError, match=sentence):
        fit.train(vary(light_config(fit_dataset, tmp_path / "runs"), **parts))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seed", (-1, 1 << 63, 1 << 64))
def test_a_seed_that_is_out_of_range_is_refused(seed):
    with pytest.raises(UserError, match="seed must lie in"):
        Config(seed=seed)


def test_a_generator_that_died_ends_the_run(fit_dataset, tmp_path):
    """At this rate, the first steps make all values before the last ReLU negative."""
    train = {"lr": 1000.0, "steps": 10**6}
    intervals = {"every": 10, "val_every": 10**6, "save_every": 10**6, "state_every": 10**6}
    config = vary(light_config(fit_dataset, tmp_path), train=train, log=intervals, pretrain={"steps": 0})
    with pytest.raises(UserError, match="no gradient has reached the generator since step .*lower learning rate"):
        fit.train(config)
    assert read_log(tmp_path / "tiny", "train")[-1]["step"] < 1000
