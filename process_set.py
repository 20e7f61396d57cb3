"""Score a run's checkpoints in several sessions at once, wait for them, rank what they scored, and name the best.

python process_set.py --n 100 --step 25     4 sessions: all checkpoints whose index modulo 100 is 0, 25, 50 or 75
python process_set.py --rank [unpaired]     rank what is scored
"""

import argparse
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import inference
from build import open_run
from errors import UserError, run_cli
from judges import Unpaired
from metrics import MEASURES
from scores import Board, checkpoints, select, write_ranking
from training.log import Progress

PASSED = ("run", "runs", "data-root", "device", "at-once", "protocol", "rank")  # options handed on to inference.py
INTERVAL = 0.5  # seconds between two looks at the sessions
# What a session's environment takes over from ours, as a tmux server has that of whoever started it. No secrets: its
# command line is in sight of all.
INHERITED = re.compile(
    r"(PATH|HOME|VIRTUAL_ENV|LD_LIBRARY_PATH|(TORCH|CUDA|HF|XDG|OMP|MKL|PYTHON)_?\w*|\w+_PROXY)(?<!TOKEN)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Session:
    """One process of inference.py, with the checkpoints of one remainder."""

    name: str
    remainder: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path  # for its log and its exit status

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def status(self) -> Path:
        """Holds the exit status, once there is one."""
        return self.folder / f"{self.name}.status"

    def script(self) -> str:
        """For sh: run the command, show and keep what it says, note how it ended."""
        assign = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.environment.items())
        log, status = (shlex.quote(str(path.absolute())) for path in (self.log, self.status))
        command = f"cd {shlex.quote(os.getcwd())} && env {assign} {shlex.join(self.command)}"
        return f"{{ {command}; echo $? > {status}; }} 2>&1 | tee {log}"

    def verdict(self) -> str:
        """Why it did not do all its work; empty if it did."""
        code = self.status.read_text().strip() if self.status.exists() else ""
        if code == "0":
            return ""
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        how = f"ended with status {code}" if code else "was killed"
        return f"session {self.name} {how}; its last lines:\n" + "\n".join(f"  {line}" for line in said[-5:])


# --- launchers: start sessions, tell whether one is alive, stop one ---------------------------------------------------


class Tmux:
    """A detached tmux session each, which anyone can attach to and which outlives this process."""

    def start(self, sessions: Sequence[Session]) -> str:
        for session in sessions:
            end = (";", "set-option", "-t", f"={session.name}:", "remain-on-exit", "off")  # whatever .tmux.conf says
            done = self._tmux("new-session", "-d", "-s", session.name, "sh", "-c", session.script(), *end)
            if done.returncode and not self.alive(session):  # alive: another process_set.py has just started it
                raise UserError(f"tmux cannot start a session: {done.stderr.strip()}; --launcher local needs no tmux")
        return f"to look in: tmux attach -t ={sessions[0].name}"

    def alive(self, session: Session) -> bool:
        return self._tmux("has-session", "-t", f"={session.name}").returncode == 0

    def stop(self, session: Session) -> None:
        self._tmux("kill-session", "-t", f"={session.name}")

    @staticmethod
    def _tmux(*arguments: str) -> subprocess.CompletedProcess:
        try:
            return subprocess.run(["tmux", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UserError("there is no tmux here: take --launcher local") from None


class Local:
    """Plain processes of this machine."""

    def __init__(self):
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, sessions: Sequence[Session]) -> str:
        for session in sessions:
            streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            process = subprocess.Popen(["sh", "-c", session.script()], start_new_session=True, **streams)
            self.processes[session.name] = process
        return f"they write to {sessions[0].log}{' and so on' if len(sessions) > 1 else ''}"

    def alive(self, session: Session) -> bool:
        return session.name in self.processes and self.processes[session.name].poll() is None

    def stop(self, session: Session) -> None:
        if self.alive(session):
            os.killpg(self.processes[session.name].pid, signal.SIGTERM)


class Slurm:
    """A job array, whose indices are the remainders. Where there is no sbatch, it is printed instead."""

    def __init__(self, options: Sequence[str] = ()):
        self.options, self.job = options, ""

    def array(self, sessions: Sequence[Session]) -> str:
        """The batch script."""
        indices = ",".join(session.remainder for session in sessions)
        header = ["--job-name=process_set", f"--array={indices}", "--output=/dev/null", *self.options]
        cases = [f"{session.remainder}) {session.script()} ;;" for session in sessions]
        lines = ["#!/bin/sh", *(f"#SBATCH {option}" for option in header), 'case "$SLURM_ARRAY_TASK_ID" in', *cases]
        return "\n".join([*lines, "esac", ""])

    def start(self, sessions: Sequence[Session]) -> str:
        script = self.array(sessions)
        if not shutil.which("sbatch"):
            print(script, end="")
            return "there is no sbatch here: the job array is printed, to be submitted where there is"
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"sbatch refuses the job array: {done.stderr.strip()}")
        self.job = done.stdout.strip().split(";")[0]
        return f"job array {self.job}"

    def alive(self, session: Session) -> bool:
        if not self.job or session.status.exists():
            return False
        task = f"{self.job}_{session.remainder}"
        return bool(subprocess.run(["squeue", "-h", "-j", task], capture_output=True, text=True).stdout.strip())

    def stop(self, session: Session) -> None:
        if self.job:
            subprocess.run(["scancel", f"{self.job}_{session.remainder}"], capture_output=True)


LAUNCHERS = {"tmux": Tmux, "local": Local, "slurm": Slurm}


# --- the work --------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    options = inference.parser("process_set.py", "Score the checkpoints of a run in several sessions, and rank them.")
    options.add_argument("--n", type=int, help="score checkpoints by their index modulo N (1)")
    options.add_argument("--step", type=int, help="those whose remainder is a multiple of this; a session each (1)")
    options.add_argument(
        "--rank",
        nargs="?",
        const="paired",
        choices=("paired", "unpaired"),
        help="rank with ground truth (paired) or without; alone, without --n and --step, it ranks what is scored",
    )
    options.add_argument("--launcher", choices=LAUNCHERS, help="tmux where there is tmux, otherwise local")
    options.add_argument(
        "--sbatch", type=shlex.split, default=[], metavar="OPTIONS", help="for slurm, such as '--partition=p --gpus=1'"
    )
    options.add_argument("--detach", action="store_true", help="return when the sessions are started")
    asked = options.parse_args(arguments)
    asked.only_rank = asked.rank is not None and asked.n is None and asked.step is None
    asked.rank = asked.rank or "paired"
    asked.n, asked.step = (1 if value is None else value for value in (asked.n, asked.step))
    if not 1 <= asked.step <= asked.n:
        raise UserError(f"--step must lie between 1 and --n, which is {asked.n}; it is {asked.step}")
    asked.launcher = asked.launcher or ("tmux" if shutil.which("tmux") else "local")
    return asked


def plan(asked: argparse.Namespace, run: Path, board: Board) -> list[Session]:
    """A session for each remainder with something left to score; on several GPUs, one GPU each in turn."""
    remainders = range(0, asked.n, asked.step)
    select(run, asked.n, remainders)  # raises where nothing matches
    places = dict(enumerate(checkpoints(run)))
    left = [r for r in remainders if any(i % asked.n == r and not board.done(path) for i, path in places.items())]
    slurm = asked.launcher == "slurm"  # gives each task a GPU of its own
    devices = [] if slurm else gpus(asked.device)
    threads = str(max(1, (os.cpu_count() or 1) // max(1, len(left))))
    inherited = {key: value for key, value in os.environ.items() if INHERITED.fullmatch(key)}
    if slurm:
        inherited.pop("CUDA_VISIBLE_DEVICES", None)
    sessions = []
    for place, remainder in enumerate(left):
        device = {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {}
        environment = {"OMP_NUM_THREADS": threads} | inherited | device
        script = str(Path(inference.__file__).absolute())
        options = [f"--{key}={getattr(asked, key.replace('-', '_'))}" for key in PASSED]
        command = (sys.executable, script, *options, f"--n={asked.n}", f"--remainder={remainder}")
        command += ("--measures", *asked.measures)
        digest = hashlib.sha256(repr((str(run.absolute()), command)).encode()).hexdigest()[:6]
        name = "-".join(("isp", re.sub(r"\W", "_", asked.run, flags=re.ASCII), str(remainder), digest))
        sessions.append(Session(name, str(remainder), command, environment, board.folder / "sessions"))
    return sessions


def gpus(device: str) -> list[str]:
    """The GPUs that the sessions share, as CUDA_VISIBLE_DEVICES names them; none where `device` is a certain one."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def wait(
    sessions: Sequence[Session],
    started: Sequence[Session],
    launcher: Tmux | Local | Slurm,
    board: Board,
    wanted: Sequence[Path],
) -> None:
    """Until no session is alive; shows progress over all of them. Ctrl-C ends those started here."""
    left = set(wanted)

    def scored() -> int:
        left.difference_update([path for path in left if board.done(path)])
        return len(wanted) - len(left)

    try:
        with Progress("scored", scored(), len(wanted), unit="checkpoint") as progress:
            while left and any(launcher.alive(session) for session in sessions):
                time.sleep(INTERVAL)
                progress.update(scored())
            while any(launcher.alive(session) for session in sessions):  # they are about to end
                time.sleep(INTERVAL)
    except KeyboardInterrupt:
        for session in started:
            launcher.stop(session)
        print(
            "\nthe sessions are ended that were started here; what is scored stays, and the same command goes on",
            file=sys.stderr,
        )
        raise


def rank(run: Path, board: Board) -> None:
    """Write the ranking and show its best ten."""
    by = MEASURES[board.columns[0]] if board.protocol != "unpaired" else Unpaired.measure
    # Another process_set.py may be ranking too, by whatever: best.json is the run's.
    with replace(board, folder=run / "scores").claim([run / "best"], wait=True):
        ranking = board.ranking(run, by.higher_is_better)
        if not ranking:
            what = f"by {board.columns[0]}, protocol {board.protocol}"
            raise UserError(f"nothing in {board.folder} is scored {what}: score with --n N --step S")
        write_ranking(run, board, ranking)
    columns = [name for name in ranking[0] if name not in ("rank", "checkpoint", "step")]
    print(f"\n{len(ranking)} of {len(checkpoints(run))} checkpoints of {run}, {board.asked['protocol']}")
    print(f"{'':>4}  {'checkpoint':<14}" + "".join(f"{name:>12}" for name in columns))
    for row in ranking[:10]:
        values = "".join(f"{row[name]:12.4f}" if name in row else f"{'':12}" for name in columns)
        print(f"{row['rank']:>4}  {row['checkpoint']:<14}{values}")
    print(f"ranking: {board.folder / 'ranking.csv'}, best: {run / 'best.json'}")


def main() -> None:
    asked = parse(sys.argv[1:])
    run, config = open_run(asked.runs, asked.run, asked.data_root)
    board = inference.open_board(run, config, asked.rank, asked.protocol, asked.measures)
    if asked.only_rank:
        return rank(run, board)
    launcher = Slurm(asked.sbatch) if asked.launcher == "slurm" else LAUNCHERS[asked.launcher]()
    sessions = plan(asked, run, board)
    if sessions:
        new = [session for session in sessions if not launcher.alive(session)]
        for session in new:
            session.folder.mkdir(parents=True, exist_ok=True)
            session.status.unlink(missing_ok=True)
        hint = f"; {launcher.start(new)}" if new else ""
        print(f"{len(sessions)} sessions, {len(new)} of them new{hint}", file=sys.stderr, flush=True)
        if asked.detach or (asked.launcher == "slurm" and not launcher.job):
            return None
        wait(sessions, new, launcher, board, select(run, asked.n, range(0, asked.n, asked.step)))
    trouble = [verdict for session in sessions if (verdict := session.verdict())]
    for verdict in trouble:
        print(verdict, file=sys.stderr)
    rank(run, board)
    if trouble:
        raise UserError(f"{len(trouble)} of {len(sessions)} sessions did not do all their work (above)")
    return None


if __name__ == "__main__":
    run_cli(main)
