"""fit.py as a command: a mistake, and Ctrl-C."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fit
import storage

from .fit_runs import read_log

ROOT = Path(fit.__file__).parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "TORCH_HOME"} | {"OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, str(ROOT / "fit.py")]
# An endless training without frozen networks, with one reading process.
ENDLESS = shlex.split("""
--run tiny --device cpu --data.no-demo --data.patch 32 --data.batch 2 --data.workers 1 --backbones.weights random
--pretrain.steps 2 --pretrain.content 0 --train.steps 100000 --train.schedule constant --train.content 0
--train.adv-color 0 --train.texture-critics grey
--log.every 1 --log.state-every 100000 --log.val-every 100000
""")


def test_a_mistake_exits_2_with_one_line(tmp_path):
    command = [*COMMAND, "fujifilm-efficient", "--data.root", "absent", "--runs", "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: no folder absent") and len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("restored")
def test_ctrl_c_saves_the_state_and_the_run_can_be_resumed(fit_dataset, tmp_path):
    """The signal is sent to the reading process, too, as a terminal does."""
    options = [*ENDLESS, "--runs", str(tmp_path), "--data.root", str(fit_dataset)]
    folder = tmp_path / "tiny"
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen([*COMMAND, *options], env=ENVIRONMENT, stderr=stderr, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not ((folder / "log.jsonl").exists() and read_log(folder, "train")):
            assert process.poll() is None and time.monotonic() < until, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    printed = (tmp_path / "stderr").read_text()
    assert "Traceback" not in printed and "Continue with --resume." in printed
    assert printed.count("Finishing this step and saving.") == 1

    state = storage.load(folder / "last.pt")
    assert (state["stage"], state["step"]) == (1, read_log(folder, "train")[-1]["step"])
    steps = state["step"] + 2
    fit.train(*fit.parse([*options, "--resume", "--train.steps", str(steps), "--data.workers", "0"]))
    assert [line["step"] for line in read_log(folder, "train") if "loss/tv" in line] == list(range(1, steps + 1))
