"""Launchers start the sessions of process_set.py: as tmux sessions, as processes of this machine, or as a Slurm job.

To add a launcher, write a class with the methods of `Launcher` and a row in `LAUNCHERS`.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from errors import UserError


@dataclass(frozen=True)
class Session:
    """One process of inference.py, which scores the checkpoints of one remainder."""

    name: str
    remainder: str
    command: tuple[str, ...]
    environment: dict[str, str]  # variables to set for the command
    folder: Path  # for its log and its exit status

    @property
    def log(self) -> Path:
        """The file with the command's output."""
        return self.folder / f"{self.name}.log"

    @property
    def status(self) -> Path:
        """The file with the command's exit status, written when the command ends."""
        return self.folder / f"{self.name}.status"

    def script(self) -> str:
        """For sh: run the command, show and log its output, and write its exit status."""
        assign = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.environment.items())
        log, status = (shlex.quote(str(path.absolute())) for path in (self.log, self.status))
        command = f"cd {shlex.quote(os.getcwd())} && env {assign} {shlex.join(self.command)}"
        return f"{{ {command}; echo $? > {status}; }} 2>&1 | tee {log}"

    def failure(self) -> str:
        """Why the session did not finish its work, with the end of its log; empty if it finished."""
        code = self.status.read_text(errors="replace").strip() if self.status.exists() else ""
        if code == "0":
            return ""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        how = f"ended with status {code}" if code else "was killed"
        return f"session {self.name} {how}; its last lines:\n" + "\n".join(f"  {line}" for line in lines[-5:])


class Launcher(Protocol):
    """Starts, watches and stops sessions. It is created with the options of --sbatch, which may be empty."""

    takes_options: bool  # uses these options
    assigns_gpus: bool  # gives each session a GPU by itself
    watches: bool  # has started sessions of which it knows whether they are alive

    def start(self, sessions: Sequence[Session]) -> str:
        """Start them, and return a hint for the user: how to watch them. Raises `UserError` if that is impossible."""

    def alive(self, session: Session) -> bool:
        """Whether the session is running or waiting to run."""

    def stop(self, session: Session) -> None:
        """End a session if it is alive."""


class Tmux:
    """A detached tmux session for each, which users can attach to and which continues after this process ends."""

    takes_options, assigns_gpus, watches = False, False, True

    def __init__(self, options: Sequence[str] = ()):
        pass

    def start(self, sessions: Sequence[Session]) -> str:
        for session in sessions:
            # Whatever .tmux.conf says, a session must close when its command ends.
            close = (";", "set-option", "-t", f"={session.name}:", "remain-on-exit", "off")
            close += (";", "set-option", "-t", f"={session.name}:", "destroy-unattached", "off")
            done = self._tmux("new-session", "-d", "-s", session.name, "sh", "-c", session.script(), *close)
            if done.returncode and not self.alive(session):  # alive: another process_set.py has just started it
                raise UserError(f"tmux cannot start a session: {done.stderr.strip()}; --launcher local needs no tmux")
        return f"to watch one: tmux attach -t ={sessions[0].name}"

    def alive(self, session: Session) -> bool:
        return self._tmux("has-session", "-t", f"={session.name}").returncode == 0

    def stop(self, session: Session) -> None:
        self._tmux("kill-session", "-t", f"={session.name}")

    @staticmethod
    def _tmux(*arguments: str) -> subprocess.CompletedProcess:
        try:
            return subprocess.run(["tmux", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UserError("tmux is not installed here: use --launcher local") from None


class Local:
    """Plain processes of this machine."""

    takes_options, assigns_gpus, watches = False, False, True

    def __init__(self, options: Sequence[str] = ()):
        self.processes: dict[str, subprocess.Popen] = {}  # by the session's name

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
    """A job array whose indices are the sessions' remainders. Without sbatch, its batch script is printed instead."""

    takes_options, assigns_gpus = True, True

    def __init__(self, options: Sequence[str] = ()):
        """`options` are further options of sbatch: ("--partition=p", "--gpus=1")."""
        self.options = options
        self.job = ""  # the number of the submitted job array; empty: none is submitted
        self.cluster: list[str] = []  # options that name its cluster, where there are several

    @property
    def watches(self) -> bool:
        return bool(self.job)

    def batch_script(self, sessions: Sequence[Session]) -> str:
        """What to submit to sbatch."""
        indices = ",".join(session.remainder for session in sessions)
        options = map(shlex.quote, self.options)
        header = ["--job-name=process_set", f"--array={indices}", "--output=/dev/null", *options]
        cases = [f"{session.remainder}) {session.script()} ;;" for session in sessions]
        lines = ["#!/bin/sh", *(f"#SBATCH {option}" for option in header), 'case "$SLURM_ARRAY_TASK_ID" in', *cases]
        return "\n".join([*lines, "esac", ""])

    def start(self, sessions: Sequence[Session]) -> str:
        script = self.batch_script(sessions)
        if not shutil.which("sbatch"):
            print(script, end="")
            return "sbatch is not installed here: the batch script is printed, submit it on a machine that has sbatch"
        done = subprocess.run(["sbatch", "--parsable"], input=os.fsencode(script), capture_output=True)
        printed = done.stdout.decode(errors="replace").strip().splitlines()
        if done.returncode:
            raise UserError(f"sbatch refuses the job array: {done.stderr.decode(errors='replace').strip()}")
        if not printed or not (found := re.fullmatch(r"(\d+)(?:;(\S+))?", printed[-1].strip())):
            raise UserError(f"sbatch does not tell the number of the job array, but: {' '.join(printed) or 'nothing'}")
        self.job, self.cluster = found[1], ["-M", found[2]] if found[2] else []
        return f"job array {self.job}"

    def alive(self, session: Session) -> bool:
        if not self.job or session.status.exists():
            return False
        task = f"{self.job}_{session.remainder}"
        try:
            done = subprocess.run(["squeue", "-h", *self.cluster, "-j", task], capture_output=True, text=True)
        except FileNotFoundError:
            hint = "it goes on; rank its scores later (process_set.py --rank)"
            raise UserError(
                f"squeue is not installed here, so job array {self.job} cannot be watched: {hint}"
            ) from None
        if done.returncode:  # the job is over and forgotten; otherwise its controller cannot be reached for now
            return "invalid job id" not in done.stderr.lower()
        return any(line.strip() and not line.startswith("CLUSTER:") for line in done.stdout.splitlines())

    def stop(self, session: Session) -> None:
        if self.job and shutil.which("scancel"):
            subprocess.run(["scancel", *self.cluster, f"{self.job}_{session.remainder}"], capture_output=True)


LAUNCHERS = {"tmux": Tmux, "local": Local, "slurm": Slurm}
