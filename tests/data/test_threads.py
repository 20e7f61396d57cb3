"""Work in several threads, and LibRaw in forked processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data import threads
from data.threads import in_threads
from errors import UserError

from ..dng import dng, sampled

ROOT = Path(threads.__file__).parents[1]
# The parent has used OpenMP's threads; its child needs them, too.
FORKED = """
import os, rawpy, signal, sys, torch, warnings
from data.threads import use_one_openmp_thread

def develop():
    with rawpy.imread(sys.argv[1]) as raw:
        raw.postprocess()

warnings.simplefilter("ignore")
develop()
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends it if it hangs
    use_one_openmp_thread()
    develop()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


def test_results_come_in_order_however_long_each_takes():
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number < 3 else 0)
        return number * number

    assert list(in_threads(slow_at_first, range(100), "counting")) == [i * i for i in range(100)]
    assert list(in_threads(slow_at_first, (), "counting")) == []


def test_short_work_shows_no_progress_bar_and_long_work_does(capsys, monkeypatch):
    list(in_threads(str, range(10), "reading"))
    assert not capsys.readouterr().err
    monkeypatch.setattr(threads, "PATIENCE", 0)
    list(in_threads(str, range(10), "reading"))
    assert "reading: 100%" in capsys.readouterr().err


def test_an_exception_ends_the_work_soon():
    done = []

    def fail(number: int) -> None:
        done.append(number)
        if number == 3:
            raise UserError("number 3")

    with pytest.raises(UserError, match="number 3"):
        list(in_threads(fail, range(100_000), "counting"))
    assert len(done) < 10_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_libraw_does_not_hang_in_a_forked_process(tmp_path):
    scene = np.random.default_rng(0).random((128, 128, 3))
    (tmp_path / "a.dng").write_bytes(dng(sampled(scene)))
    command = [sys.executable, "-c", FORKED, str(tmp_path / "a.dng")]
    environment = os.environ | {"OMP_NUM_THREADS": "4", "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment).returncode == 0
