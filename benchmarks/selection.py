"""Shows how well the ranking without pairs selects checkpoints: compares it with the ranking by PSNR and LPIPS.

python benchmarks/selection.py RUN ...     folders of runs that process_set.py ranked twice: with --measures psnr lpips,
                                           and with --rank unpaired
"""

import argparse
from pathlib import Path

import common  # noqa: F401 - adds the repository's root to sys.path
import numpy as np
from scipy.stats import spearmanr

from errors import UserError, run_cli
from evaluation.evaluators import UnpairedEvaluator
from evaluation.tables import folder_of, read_ranking


def read_both(run: Path) -> list[dict]:
    """The checkpoints that are in both rankings, sorted by step. Raises `UserError` if there are none."""
    paired, unpaired = (
        {row["checkpoint"]: row for row in read_ranking(folder_of(run, protocol) / "ranking.csv")[1]}
        for protocol in ("paper", "unpaired")
    )
    rows = [paired[name] | unpaired[name] for name in paired.keys() & unpaired.keys()]
    if not rows or not {"psnr", "lpips", *UnpairedEvaluator.columns} <= rows[0].keys():
        raise UserError(f"{run} needs both rankings: process_set.py --measures psnr lpips, and --rank unpaired")
    return sorted(rows, key=lambda row: row["step"])


def show(name: str, rows: list[dict]) -> None:
    """Print, for each measure without pairs, its rank correlations and how much worse than the best its choice is."""
    psnr, lpips = (np.array([row[key] for row in rows]) for key in ("psnr", "lpips"))
    print(f"{name}: {len(rows)} checkpoints, {psnr.min():.2f} to {psnr.max():.2f} dB, the last {psnr[-1]:.2f} dB")
    for column in UnpairedEvaluator.columns:
        score = -np.array([row[column] for row in rows])
        chosen = score.argmax()
        print(
            f"  {column:<10} Spearman PSNR {spearmanr(score, psnr)[0]:+.2f}, LPIPS {spearmanr(score, -lpips)[0]:+.2f}; "
            f"its choice loses {psnr.max() - psnr[chosen]:.2f} dB, LPIPS {lpips[chosen] - lpips.min():.3f}"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run that is ranked both ways")
    runs = {str(path): read_both(path) for path in options.parse_args().runs}
    for name, rows in runs.items():
        show(name, rows)
    if len(runs) > 1:
        show("all", [row for rows in runs.values() for row in rows])


if __name__ == "__main__":
    run_cli(main)
