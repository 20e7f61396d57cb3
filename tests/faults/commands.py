"""How tests call a command with bad input, and what they expect of what it prints."""

from pathlib import Path


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}", "--device=cpu"


def refused(call, command, *arguments: object) -> str:
    """What a command prints that must end with status 2 and one sentence, without a traceback."""
    status, output = call(command, *arguments)
    assert status == 2 and "Traceback" not in output and output.count("error: ") == 1, output
    return output


def files_of(folder: Path) -> dict[Path, bytes]:
    """Everything in a folder, by name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
