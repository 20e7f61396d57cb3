"""Score a run's checkpoints in several sessions at once, wait for them, rank the checkpoints, and record the best.

python process_set.py --n 100 --step 25     4 sessions: all checkpoints whose index modulo 100 is 0, 25, 50 or 75
python process_set.py --rank [unpaired]     rank the checkpoints that are scored already
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import dataclasses
import hashlib
import math
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

import inference
from config import open_run
from data.notes import note
from errors import UserError, run_cli
from evaluation.evaluators import UnpairedEvaluator
from evaluation.launchers import LAUNCHERS, Launcher, Session
from evaluation.protocols import measures_of
from evaluation.tables import ScoreTables, checkpoints, select, write_ranking
from tasks.device import choose_device
from tasks.table import TASKS
from training.log import Progress, say

PASSED_ON = ("run", "runs", "data-root", "device", "at-once", "rank")  # options passed on to inference.py
SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # a scheduler's request, a terminal that was closed
INTERVAL = 0.5  # seconds between checks of the sessions
MAX_SESSIONS = 256  # at once: more would fill a machine's memory, or exceed the size that Slurm allows for a job array
# Environment variables that sessions get from this process: a tmux server has those of the process that started it.
# No secrets: everybody on the machine can read a session's command line.
INHERITED = re.compile(
    r"(PATH|HOME|VIRTUAL_ENV|LD_LIBRARY_PATH|(TORCH|CUDA|HF|XDG|OMP|MKL|PYTHON)_?\w*|\w+_PROXY)(?<!TOKEN)",
    re.IGNORECASE,
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Raises `UserError`, or exits with status 2, for options that do not fit together."""
    options = inference.parser("process_set.py", "Score the checkpoints of a run in several sessions, and rank them.")
    options.add_argument("--n", type=int, help="group the checkpoints by their index modulo N (1)")
    options.add_argument("--step", type=int, help="a session for each remainder 0, STEP, 2 STEP, ... below N (1)")
    options.add_argument(
        "--rank",
        nargs="?",
        const="paired",
        choices=("paired", "unpaired"),
        help="rank with ground truth (paired) or without; without --n and --step, only rank what is scored",
    )
    options.add_argument("--launcher", choices=LAUNCHERS, help="what runs the sessions (tmux if installed, else local)")
    options.add_argument(
        "--sbatch", type=shlex.split, metavar="OPTIONS", help="for slurm, such as --sbatch='--partition=p --gpus=1'"
    )
    options.add_argument("--detach", action="store_true", help="return as soon as the sessions have started")
    given = options.parse_args(arguments)
    given.only_rank = given.rank is not None and given.n is None and given.step is None
    for name in ("launcher", "sbatch", "detach", "device", "at_once"):
        if given.only_rank and getattr(given, name) != options.get_default(name):
            options.error(f"--{name.replace('_', '-')} has no effect without --n and --step: nothing is scored")
    given.rank = given.rank or "paired"
    inference.set_measures(options, given)
    given.n, given.step = (1 if value is None else value for value in (given.n, given.step))
    if given.n < 1:
        raise UserError(f"--n must be at least 1, but is {given.n}")
    if not 1 <= given.step <= given.n:
        raise UserError(f"--step must lie between 1 and --n, which is {given.n}; it is {given.step}")
    given.launcher = given.launcher or ("tmux" if shutil.which("tmux") else "local")
    if given.sbatch and not LAUNCHERS[given.launcher].takes_options:
        options.error(f"--sbatch needs --launcher slurm, not {given.launcher}")
    return given


def plan(given: argparse.Namespace, run: Path, tables: ScoreTables) -> list[Session]:
    """A session for each remainder that has checkpoints left to score; the sessions take the GPUs in turn.

    Raises `UserError` if there is no such checkpoint at all, or there would be too many sessions.
    """
    remainders = range(0, given.n, given.step)
    select(run, given.n, remainders)  # raises UserError if no checkpoint matches
    left = {index % given.n for index, path in enumerate(checkpoints(run)) if not tables.is_complete(path)}
    left = sorted(remainder for remainder in left if remainder in remainders)
    if len(left) > MAX_SESSIONS:
        raise UserError(
            f"--n {given.n} --step {given.step} would start {len(left)} sessions at once, more than {MAX_SESSIONS}: "
            "choose a smaller --n, or a larger --step"
        )
    assigns = LAUNCHERS[given.launcher].assigns_gpus
    devices = [] if assigns else gpus(given.device)
    threads = str(max(1, (os.cpu_count() or 1) // max(1, len(left))))
    inherited = {key: value for key, value in os.environ.items() if INHERITED.fullmatch(key)}
    if assigns:
        inherited.pop("CUDA_VISIBLE_DEVICES", None)
    sessions = []
    for number, remainder in enumerate(left):
        device = {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}
        environment = {"OMP_NUM_THREADS": threads} | inherited | device
        script = str(Path(inference.__file__).absolute())
        values = {key: getattr(given, key.replace("-", "_")) for key in PASSED_ON}
        options = [f"--{key}={value}" for key, value in values.items() if value != ""]
        command = (sys.executable, script, *options, f"--n={given.n}", f"--remainder={remainder}")
        if given.rank == "paired":
            command += (f"--protocol={tables.protocol}", "--measures", *tables.columns)
        digest = hashlib.sha256(repr((str(run.absolute()), command)).encode()).hexdigest()[:6]
        name = "-".join(("isp", re.sub(r"\W", "_", given.run, flags=re.ASCII), str(remainder), digest))
        sessions.append(Session(name, str(remainder), command, environment, tables.folder / "sessions"))
    return sessions


def gpus(device: str) -> list[str]:
    """The GPUs that sessions share, as CUDA_VISIBLE_DEVICES names them; none if `device` names a single device."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def start(launcher: Launcher, sessions: Sequence[Session]) -> list[Session]:
    """Start the sessions that do not run yet, and return those. Without sbatch, slurm starts none."""
    new = [session for session in sessions if not launcher.alive(session)]
    for session in new:
        session.folder.mkdir(parents=True, exist_ok=True)
        for file in (session.status, session.log):
            file.unlink(missing_ok=True)
    try:
        hint = f"; {launcher.start(new)}" if new else ""
    except (KeyboardInterrupt, SystemExit):
        stop(launcher, new)
        raise
    started = new if launcher.watches else []
    print(f"{len(sessions)} sessions, {len(started)} of them started now{hint}", file=sys.stderr, flush=True)
    return started


def stop(launcher: Launcher, sessions: Sequence[Session]) -> None:
    """Stop the sessions, after Ctrl-C or a signal of `SIGNALS`."""
    for session in sessions:
        launcher.stop(session)
    say("\nStopped the sessions that were started here. Their scores are kept; the same command continues.")


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """In the block, a signal of `SIGNALS` raises `SystemExit` of status 128 + its number: sessions can be stopped.

    Ignored signals, as SIGHUP is under nohup, stay ignored.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

    def end(number: int, _frame) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second one must not interrupt the stopping
        sys.exit(128 + number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(
    sessions: Sequence[Session],
    started: Sequence[Session],
    launcher: Launcher,
    tables: ScoreTables,
    wanted: Sequence[Path],
) -> None:
    """Wait until no session is alive, and show the progress of all. Ctrl-C or SIGTERM stop those `started` here."""
    left = set(wanted)

    def scored() -> int:
        left.difference_update([path for path in left if tables.is_complete(path)])
        return len(wanted) - len(left)

    try:
        with Progress("scored", scored(), len(wanted), unit="checkpoint") as progress:
            while left and any(launcher.alive(session) for session in sessions):
                time.sleep(INTERVAL)
                progress.update(scored())
            while any(launcher.alive(session) for session in sessions):  # everything is scored: they end in a moment
                time.sleep(INTERVAL)
    except (KeyboardInterrupt, SystemExit):
        stop(launcher, started)
        raise


def rank(run: Path, tables: ScoreTables) -> None:
    """Write the ranking and print its first ten rows."""
    unpaired, column = tables.protocol == "unpaired", tables.columns[0]
    measure = UnpairedEvaluator.measure if unpaired else measures_of(tables.protocol)[column]
    # best.json belongs to the run: wait for another process_set.py that may be ranking by another measure.
    with dataclasses.replace(tables, folder=run / "scores").claim([run / "best"], wait=True):
        ranking = tables.ranking(run, measure.higher_is_better)
        if not ranking:
            by = f"by {column}, protocol {tables.protocol}"
            raise UserError(f"no checkpoint in {tables.folder} is scored {by}: score them with --n N --step S")
        write_ranking(run, tables, ranking)
    _warn(tables, run / "checkpoints" / f"{ranking[0]['checkpoint']}.pt", ranking)
    columns = [name for name in ranking[0] if name not in ("rank", "checkpoint", "step")]
    print(f"\n{len(ranking)} of {len(checkpoints(run))} checkpoints of {run}, {tables.facts['protocol']}")
    print(f"{'':>4}  {'checkpoint':<14}" + "".join(f"{name:>12}" for name in columns))
    for row in ranking[:10]:
        values = "".join(f" {row[name]:11.4f}" if name in row else f"{'':12}" for name in columns)
        print(f"{row['rank']:>4}  {row['checkpoint']:<14}{values}")
    print(f"ranking: {tables.folder / 'ranking.csv'}, best: {run / 'best.json'}")


def _warn(tables: ScoreTables, best: Path, ranking: list[dict]) -> None:
    """Tell what makes a ranking worth little: networks with random weights, infinite scores."""
    for name, source in tables.networks(tables.read(best)).items():
        if source.startswith("random"):
            note(f"{name} had random weights: this ranking says little about how images look")
    column = tables.columns[0]
    if infinite := sum(math.isinf(row[column]) for row in ranking):
        note(
            f"the {column} of {infinite} checkpoints is infinite, because an output equals its photograph, such as a "
            "black one: remove such pairs, or rank by another measure"
        )


def main() -> None:
    given = parse(sys.argv[1:])
    run, config = open_run(given.runs, given.run, given.data_root)
    tables = TASKS[config.task].open_tables(run, config, given.rank, given.protocol, given.measures)
    if given.only_rank:
        rank(run, tables)
        return
    launcher = LAUNCHERS[given.launcher](given.sbatch or ())
    # Refuse a wrong device before each session does. An existing GPU is not tried: that would take some of its memory.
    gpu = launcher.assigns_gpus or (torch.cuda.is_available() and given.device.startswith("cuda"))
    if given.device != "auto" and not gpu:
        choose_device(given.device)
    sessions = plan(given, run, tables)
    if sessions:
        with exiting_on_signals():
            started = start(launcher, sessions)
            if given.detach or not launcher.watches:
                return
            wait(sessions, started, launcher, tables, select(run, given.n, range(0, given.n, given.step)))
    failures = [failure for session in sessions if (failure := session.failure())]
    for failure in failures:
        print(failure, file=sys.stderr)
    rank(run, tables)
    if failures:
        raise UserError(f"{len(failures)} of {len(sessions)} sessions did not finish (see above)")


if __name__ == "__main__":
    run_cli(main)
