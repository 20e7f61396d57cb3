"""How well the ranking without pairs chooses: both rankings of runs, compared.

python benchmarks/selection.py RUN ...     folders of runs ranked by process_set.py with --measures psnr lpips and with
                                           --rank unpaired
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a script here finds the modules beside this folder

from errors import UserError, run_cli  # noqa: E402
from judges import Unpaired  # noqa: E402
from scores import folder_of, read_ranking  # noqa: E402


def both(run: Path) -> list[dict]:
    """The checkpoints that are in both rankings, in the order of their steps."""
    paired, unpaired = (
        {row["checkpoint"]: row for row in read_ranking(folder_of(run, protocol) / "ranking.csv")[1]}
        for protocol in ("paper", "unpaired")
    )
    rows = [paired[name] | unpaired[name] for name in paired.keys() & unpaired.keys()]
    if not rows or "lpips" not in rows[0]:
        raise UserError(
            f"{run} is not ranked both ways, by process_set.py with --measures psnr lpips and --rank unpaired"
        )
    return sorted(rows, key=lambda row: row["step"])


def show(name: str, rows: list[dict]) -> None:
    """A line for each measure: rank correlations, and what its first choice loses."""
    psnr, lpips = (np.array([row[key] for row in rows]) for key in ("psnr", "lpips"))
    print(f"{name}: {len(rows)} checkpoints, {psnr.min():.2f} to {psnr.max():.2f} dB, the last {psnr[-1]:.2f} dB")
    for column in Unpaired.columns:
        score = -np.array([row[column] for row in rows])
        chosen = score.argmax()
        print(
            f"  {column:<10} rho PSNR {spearmanr(score, psnr)[0]:+.2f}  LPIPS {spearmanr(score, -lpips)[0]:+.2f}  "
            f"loses {psnr.max() - psnr[chosen]:.2f} dB, LPIPS {lpips[chosen] - lpips.min():.3f}"
        )


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise UserError(f"name the folders of runs\n\n{__doc__}")
    runs = {path: both(Path(path)) for path in sys.argv[1:]}
    for path, rows in runs.items():
        show(path, rows)
    if len(runs) > 1:
        show("all", [row for rows in runs.values() for row in rows])


if __name__ == "__main__":
    run_cli(main)
