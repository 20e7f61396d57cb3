"""What a run reports: log.jsonl, TensorBoard, statistics as numbers, progress, and speed."""

import errno
import json
import os
import threading

import pytest
import torch

from errors import UserError
from training.log import Forecast, GradientCheck, NoLog, Progress, RunLog, Stopwatch, say, to_floats


def lines(folder) -> list[dict]:
    """The lines of log.jsonl."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def scalars(folder, name: str) -> list[int]:
    """The steps at which TensorBoard shows a value of this name."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def write(log: RunLog, *steps: int) -> None:
    """Write a line for each step of stage "train"."""
    for step in steps:
        log.write("train", step, step, {"loss": step / 2})


# --- log.jsonl and TensorBoard --------------------------------------------------------------------------------------


def test_a_line_holds_stage_step_and_values(tmp_path):
    log = RunLog(tmp_path)
    log.write("pretrain", 10, 10, {"loss/tv": 0.5, "norm/tv": 2.0})
    log.write("train", 1, 11, {"val_psnr": 20.25})
    assert lines(tmp_path) == [  # readable while the log is open
        {"stage": "pretrain", "step": 10, "loss/tv": 0.5, "norm/tv": 2.0},
        {"stage": "train", "step": 1, "val_psnr": 20.25},
    ]
    log.close()


def test_a_resumed_log_continues_from_its_position(tmp_path):
    log = RunLog(tmp_path)
    write(log, 1, 2)
    position, digest = log.mark()
    assert position == (tmp_path / "log.jsonl").stat().st_size
    write(log, 3)
    whole = (tmp_path / "log.jsonl").read_bytes()
    log.file.write(b'{"stage": "tr')  # a kill while a line is written
    log.close()
    resumed = RunLog(tmp_path, position, digest, 2)
    assert len(lines(tmp_path)) == 2 and resumed.mark() == (position, digest)
    write(resumed, 3)
    resumed.close()
    assert (tmp_path / "log.jsonl").read_bytes() == whole


def test_a_new_log_replaces_the_old_one(tmp_path):
    for _ in range(2):
        log = RunLog(tmp_path)
        write(log, 1)
        log.close()
    assert len(lines(tmp_path)) == 1


def test_tensorboard_counts_the_steps_of_all_stages(tmp_path):
    log = RunLog(tmp_path)
    log.write("train", 1, 101, {"loss": 1.0})
    log.close()
    assert scalars(tmp_path, "train/loss") == [101]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    log = RunLog(tmp_path)
    write(log, 1, 2)
    position, digest = log.mark()
    write(log, 3, 4)
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.rename(events.with_name(events.name.replace("tfevents.", "tfevents.0")))  # as if written at an earlier time
    resumed = RunLog(tmp_path, position, digest, 2)  # the state was saved at step 2
    write(resumed, 3)
    resumed.close()
    assert scalars(tmp_path, "train/loss") == [1, 2, 3]


def test_the_first_line_holds_facts_about_the_run(tmp_path):
    log = RunLog(tmp_path)
    log.begin({"weights": {"vgg": "random (seed 0)"}})
    log.close()
    assert lines(tmp_path) == [{"stage": "start", "weights": {"vgg": "random (seed 0)"}}]


def test_a_full_disk_names_the_log(tmp_path):
    log = RunLog(tmp_path)
    log.file.close()
    with open("/dev/full", "wb", buffering=0) as log.file, pytest.raises(OSError) as caught:
        write(log, 1)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "log.jsonl"))


def test_a_full_disk_in_tensorboard_s_thread_prints_no_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("threading.excepthook", threading.__excepthook__)
    log = RunLog(tmp_path)
    for error in (OSError(errno.ENOSPC, "full"), ValueError("a bug")):
        thread = threading.Thread(target=lambda error=error: (_ for _ in ()).throw(error))
        thread.start()
        thread.join()
    log.close()
    printed = capsys.readouterr().err
    assert "a bug" in printed and "full" not in printed


def test_sample_images_are_shown_in_tensorboard(tmp_path):
    log = RunLog(tmp_path)
    log.show("train", 3, torch.rand(3, 8, 8))
    log.close()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (image,) = events.Images("train/samples")
    assert (image.step, image.width, image.height) == (3, 8, 8)


def test_a_process_that_writes_no_files_has_an_empty_log():
    log = NoLog()
    log.begin({"weights": {}})
    write(log, 1)
    log.show("train", 1, torch.rand(3, 8, 8))
    log.close()


# --- statistics ------------------------------------------------------------------------------------------------------


def test_statistics_are_converted_to_numbers():
    assert to_floats({"loss/tv": torch.tensor(0.5), "norm/tv": torch.tensor(2)}, "step 1") == {
        "loss/tv": 0.5,
        "norm/tv": 2.0,
    }


def test_statistics_are_averaged_over_the_processes():
    statistics = {"a": torch.tensor(2.0), "b": torch.tensor(4.0)}
    assert to_floats(statistics, "step 1", mean=lambda values: values / 2) == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf")))
def test_a_statistic_that_is_not_finite_raises_an_error(value):
    statistics = {"loss/tv": torch.tensor(1.0), "norm/content": torch.tensor(value)}
    with pytest.raises(UserError, match=rf"norm/content is {value} at step 7 of train"):
        to_floats(statistics, "step 7 of train")


def silent(step: int) -> dict[str, float]:
    """The statistics of a step in which no gradient reached the generator."""
    return {"loss/tv": 0.0, "norm/tv": 0.0, "norm/color": 0.0, "critic/color/gap": float(step)}


@pytest.mark.parametrize(("every", "last"), ((10, 150), (1, 150), (50, 500)))
def test_ten_logged_steps_over_a_hundred_steps_without_a_gradient_end_training(every, last):
    check = GradientCheck()
    check.check(silent(0) | {"norm/tv": 1e-30}, 50 - every, "train")
    with pytest.raises(UserError, match="no gradient has reached the generator since step 50 of train.*lower learning"):
        for step in range(50, 10**6, every):
            reached = step
            check.check(silent(step), step, "train")
    assert reached == last


@pytest.mark.parametrize("alive", ({"norm/color": 1e-38}, {"norm/tv": 3.0}))
def test_a_gradient_now_and_then_is_enough(alive):
    check = GradientCheck()
    for step in range(0, 10**5, 10):
        check.check(silent(step) | (alive if step % 100 == 90 else {}), step, "train")


def test_statistics_without_norms_are_not_checked():
    check = GradientCheck()
    for step in range(0, 1000, 10):
        check.check({"loss/weight": 0.0}, step, "train")


# --- progress and speed ----------------------------------------------------------------------------------------------


def test_progress_without_a_terminal_prints_a_line_at_the_end(capsys):
    with Progress("train", 0, 3) as progress:
        progress.update(1)
        progress.update(2, val_psnr=20.123)
        progress.update(3)
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1 and "train" in err and "3/3" in err and "val_psnr 20.12" in err
    assert "\r" not in err


def test_progress_without_a_terminal_prints_a_line_every_20_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.log.time.monotonic", lambda: now[0])
    progress = Progress("train", 0, 1000)
    for step in range(1, 101):
        now[0] += 1
        progress.update(step)
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_progress_of_a_resumed_run_starts_at_its_step(capsys):
    progress = Progress("train", 8, 10)
    progress.update(9)
    progress.update(10)
    assert "10/10" in capsys.readouterr().err


def test_quiet_progress_prints_nothing(capsys):
    with Progress("train", 0, 1, quiet=True) as progress:
        progress.update(1)
    assert capsys.readouterr() == ("", "")


class ClosedTerminal:
    """A stream of a terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    flush = write


@pytest.mark.parametrize("terminal", (True, False))
def test_a_closed_terminal_does_not_end_training(monkeypatch, terminal):
    with Progress("train", 0, 3) as progress:
        monkeypatch.setattr("sys.stderr", ClosedTerminal())
        monkeypatch.setattr(ClosedTerminal, "isatty", lambda self: terminal)
        say("a line")
        progress.update(3)
    monkeypatch.setattr(ClosedTerminal, "flush", lambda self: None)
    if terminal:  # a bar that was begun before
        with Progress("train", 0, 3) as progress:
            progress.bar.fp = ClosedTerminal()
            progress.update(3)


@pytest.mark.parametrize(
    ("seconds", "steps", "told", "sentence"),
    (
        (5.0, 20_000, 11, "train: about 1.2 days for its 19,989 steps at this rate"),
        (200.0, 20_000, 2, "train: about 46.3 days for its 19,998 steps"),  # not after half an hour
        (1.0, 80_000, 0, ""),
        (10.0, 8000, 0, ""),
    ),
)
def test_a_stage_of_days_is_announced_once_after_its_first_steps(monkeypatch, seconds, steps, told, sentence):
    now = [0.0]
    monkeypatch.setattr("training.log.time.monotonic", lambda: now[0])
    forecast, said = Forecast("train", 0, steps), {}
    for step in range(1, 40):
        now[0] += 500 if step == 1 else seconds  # the first one compiles
        if text := forecast.after(step):
            said[step] = text
    assert list(said) == ([told] if told else []) and said.get(told, "").startswith(sentence)


def test_the_forecast_of_a_resumed_stage_counts_the_steps_that_are_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.log.time.monotonic", lambda: now[0])
    forecast, said = Forecast("train", 19_000, 20_000), ""
    for step in range(19_001, 19_021):
        now[0] += 100
        said += forecast.after(step)
    assert said.startswith("train: about 1.2 days for its 998 steps")


def test_the_stopwatch_reports_rate_waiting_and_first_step(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("training.log.time.perf_counter", lambda: now[0])
    watch = Stopwatch(step=4)
    for waiting, computing in ((1.0, 6.0), (1.0, 2.0)):
        with watch:
            now[0] += waiting
        now[0] += computing
    assert watch.report(step=6) == (
        "0.20 steps a second with validation and saving, 20.0% of the time waiting for data; the first step took 7.0 s"
    )
