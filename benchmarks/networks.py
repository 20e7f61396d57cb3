"""The networks of models.MODELS compared: size, arithmetic, receptive field, time, memory and, with --train, PSNR.

python benchmarks/networks.py --out DIR [--without NAME ...] [--size H W]                      measures each network
python benchmarks/networks.py --out DIR --train --root DATA [--models NAME ...] [-- OPTION ...]     also trains some

DIR gets the runs, and a file for each network and for each finished run, which is not measured again: to continue, give
the same command. --write docs/networks.md puts the tables into that file. The options after -- are fit.py's, for all
runs: those of the dataset, the camera and the frozen networks.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import alternate, machine, peak_memory, positive
from quality import GAME
from raw_to_raw import read_row
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fit
import storage
from data.inputs import prepare
from data.sensor import SENSORS
from errors import UserError, run_cli
from evaluation.history import read_summary
from models import MODELS, build_model, model_spec

CPU = torch.device("cpu")
WHOLE = "whole image"

# --- training: fixed before a network was trained --------------------------------------------------------------------

# Published rates (5e-5 for LAN) are for a hundred times as many steps. For short runs, one rate for all networks:
RATE = 1e-3  # of Adam, falling along half a cosine
# The same patches for all: MicroISP needs 158 pixels a side.
PATCHES = "--data.patch 160 --data.batch 2 --data.flips --data.workers 0 --data.test-count 0"
# Way -> options of fit.py. A step against critics takes several times as long as the others: there are fewer of them.
WAYS = {
    "paired": "quick --train.mode paired --train.steps {steps}",  # MSE with the mosaic's own photograph
    "unpaired": GAME  # Eq. 12, then Eq. 11
    + " --data.unpaired disjoint --pretrain.steps {steps} --train.steps {quarter} --train.ema 0.99",
    "synthetic": "quick --data.unpaired disjoint --train.steps {steps}",  # MSE with pairs that are made of photographs
}
MODELS_TRAINED = "efficient robust rmfa-tiny lan microisp syenet srcnn per-pixel-kernels-small"


def options_of(way: str, name: str, steps: int, extra: Sequence[str] = ()) -> list[str]:
    """The options of fit.py of a run, without its dataset, seed and place; of options given twice the last counts."""
    options = f"{WAYS[way].format(steps=steps, quarter=max(1, steps // 4))} {PATCHES}".split()
    times = ("--log.val-every", "--log.save-every", "--log.state-every")
    options += [word for option in times for word in (option, str(max(1, steps // 4)))]
    return [*options, "--model", name, "--pretrain.lr", str(RATE), "--train.lr", str(RATE), *extra]


def train(way: str, name: str, seed: int, given: argparse.Namespace) -> None:
    """Train a run, or continue it, and keep its last PSNR, unless it is known. Raises `UserError` as fit.py does.

    Also if the known one is of other settings.
    """
    file = score_file(given.out, way, name, seed)
    options = options_of(way, name, given.steps, given.options)
    if file.is_file():
        if (known := read_row(file)["options"]) != options:
            raise UserError(f"{file} is of other settings ({' '.join(known)}): remove it, or give another --out")
        return
    place = ("--data.root", given.root, "--runs", str(given.out / "runs"), "--run", file.stem, "--seed", str(seed))
    config, resume = fit.parse([*options, *place, "--resume"])
    psnr = read_summary(fit.train(config, resume)).get("final")
    if psnr is None:
        raise UserError(f"{config.runs}/{config.run} has no PSNR: --root needs validation pairs, in val/")
    storage.write_json(file, {"row": name, "options": options, "means": {"psnr": psnr}})
    print(f"{way}, {name}, seed {seed}: {psnr:.2f} dB", flush=True)


def score_file(out: Path, way: str, name: str, seed: int) -> Path:
    """Where the score of a run is kept; its stem is the run's name."""
    return out / "scores" / f"{way}-{name}-{seed}.json"


# --- measuring -------------------------------------------------------------------------------------------------------


def inputs_of(name: str, size: tuple[int, int]) -> Tensor:
    """What a network takes for a random mosaic of this (height, width)."""
    return prepare(torch.rand(1, 1, *size), SENSORS["fujifilm"], model_spec(name).input_format)


def in_use(name: str) -> nn.Module:
    """A network of random weights in eval mode, in its form for use (`ModelSpec.for_use`)."""
    network, fold = build_model(name).eval(), model_spec(name).for_use
    return fold(network) if fold else network


def macs_a_pixel(name: str, size: tuple[int, int]) -> float:
    """Multiply-accumulate operations of convolutions and matrix products for each mosaic pixel, without computing."""
    with torch.device("meta"):
        network = in_use(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs_of(name, size).to("meta"))
    return counter.get_total_flops() / 2 / (size[0] * size[1])


def receptive_field(name: str) -> int | str:
    """Rows of the mosaic on which two rows of the image depend, by the gradient at random weights; the most of all.

    Which they are depends on where the rows lie in the grid of a network that pools.
    """
    spec = model_spec(name)
    if spec.reach is None:
        return WHOLE
    torch.manual_seed(0)
    network = build_model(name).double().eval()
    for parameter in network.parameters():
        if not parameter.any():  # some layers start at 0, and hide what is before them
            nn.init.normal_(parameter, std=0.1)
    centre = (spec.reach // spec.multiple + 2) * spec.multiple
    inputs = inputs_of(name, (2 * centre, max(32, spec.minimum))).double().requires_grad_()
    image, step, widest = network(inputs), 2 * centre // inputs.shape[-2], 0
    for top in range(centre - spec.multiple, centre, 2):
        gradient = torch.autograd.grad(image[:, :, top : top + 2].sum(), inputs, retain_graph=True)[0]
        rows = gradient[:, :4].abs().amax((0, 1, 3)).nonzero()  # the planes after the fourth are numbers of the whole
        widest = max(widest, step * int(rows.max() - rows.min() + 1))
    return widest


@torch.inference_mode()
def cost(name: str, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """The median time of the network alone, on an input in memory, channels last, and the memory (MiB) that it adds."""
    network = in_use(name).to(memory_format=torch.channels_last)
    inputs = inputs_of(name, size).contiguous(memory_format=torch.channels_last)
    run = torch.inference_mode()(lambda: network(inputs))
    times = alternate({name: run}, repeats, CPU)[name]  # after one call to warm up
    return {"milliseconds": 1e3 * float(np.median(times)), "mib": peak_memory(run, CPU)}


def measure(name: str, given: argparse.Namespace) -> dict:
    """What is known of a network without training; measured once, then read. Raises `UserError` for other settings."""
    file, size = given.out / "networks" / f"{name}.json", tuple(given.size)
    settings = {"size": given.size, "repeats": given.repeats, "machine": machine(CPU)}
    if file.is_file():
        try:
            known = dict(json.loads(file.read_text()))
        except (TypeError, ValueError):
            raise UserError(f"{file} holds no figures of this benchmark: remove it") from None
        if known.get("settings") != settings:
            raise UserError(f"{file} is of another machine or other settings: remove it, or give another --out")
        return known
    figures = {
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in build_model(name).parameters()),
        "macs": macs_a_pixel(name, size),
        "field": receptive_field(name),
        **cost(name, size, given.repeats),
    }
    storage.write_json(file, figures)
    print(f"{name}: {figures['macs']:,.0f} MAC a pixel, {figures['milliseconds']:,.0f} ms", flush=True)
    return figures


# --- tables ----------------------------------------------------------------------------------------------------------


def facts_table(facts: dict[str, dict], given: argparse.Namespace) -> list[str]:
    """The networks in Markdown, and on what they were measured."""
    used, (height, width) = machine(CPU), given.size
    head = (
        "network",
        "parameters",
        "MAC a mosaic pixel",
        "receptive field, mosaic pixels",
        "input",
        f"{height}x{width}",
        "memory",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, found in facts.items():
        field = found["field"] if found["field"] == WHOLE else f"{found['field']}x{found['field']}"
        cells = f"{found['parameters']:,}", f"{found['macs']:,.0f}", field, f"`{MODELS[name].input_format}`"
        lines.append(f"| {name} | {' | '.join(cells)} | {found['milliseconds']:,.0f} ms | {found['mib']:,.0f} MiB |")
    how = f"Median of {given.repeats} on {used['processor']}, {used['threads']} threads, PyTorch {used['torch']}."
    return [*lines, "", how]


def scores_table(given: argparse.Namespace) -> list[str]:
    """PSNR of the trained networks in Markdown: the mean over the seeds, and each. Runs that are not there: nothing."""
    lines = [f"| network | {' | '.join(given.ways)} |", "|---" * (len(given.ways) + 1) + "|"]
    for name in given.models:
        cells = []
        for way in given.ways:
            files = [score_file(given.out, way, name, seed) for seed in range(given.seeds)]
            values = [read_row(file)["means"]["psnr"] for file in files if file.is_file()]
            each = ", ".join(f"{value:.2f}" for value in values)
            cells.append(f"{np.mean(values):.2f} dB ({each})" if values else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    budget = f"{given.steps} steps" + f", {max(1, given.steps // 4)} against critics" * ("unpaired" in given.ways)
    return [*lines, "", f"{budget}; seeds {', '.join(map(str, range(given.seeds)))}."]


def write_table(file: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what is between a file's markers of this name. Raises `UserError` if it has none."""
    text = file.read_text() if file.is_file() else ""
    start, end = f"<!-- {name}: made by benchmarks/networks.py -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{file} has no lines '{start}' and '{end}' to write the table between")
    storage.write_bytes(file, "\n".join((before + start, "", *lines, "", end + after)).encode())


# --- the command -----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit; raises `UserError` for unknown networks."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], usage="%(prog)s --out DIR [...] [-- OPTION ...]"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of runs and figures")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="networks not to measure")
    parser.add_argument(
        "--size", nargs=2, type=positive, default=[1088, 1920], metavar=("H", "W"), help="mosaic (Full HD)"
    )
    parser.add_argument("--repeats", type=positive, default=5, help="measurements of the time (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between this file's markers")
    parser.add_argument("--train", action="store_true", help="also train networks, all for as many steps")
    parser.add_argument("--root", help="--train: a dataset of layout fujifilm, with val/")
    parser.add_argument("--models", nargs="+", metavar="NAME", help=f"--train: these ({MODELS_TRAINED})")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="--train: how (paired unpaired)")
    parser.add_argument("--steps", type=positive, help="--train: of each run; a quarter against critics (2000)")
    parser.add_argument("--seeds", type=positive, help="--train: runs of each (2)")
    given, given.options = parser.parse_args(arguments[:end]), list(arguments[end + 1 :])
    training = {name: getattr(given, name) for name in ("root", "models", "ways", "steps", "seeds", "options")}
    if not given.train and any(training.values()):
        parser.error(f"{', '.join(name for name in training if training[name])}: no effect without --train")
    if given.train and not given.root:
        parser.error("--train needs --root")
    given.models = given.models or [name for name in MODELS_TRAINED.split() if name in MODELS]
    given.ways, given.steps, given.seeds = given.ways or ["paired", "unpaired"], given.steps or 2000, given.seeds or 2
    for name in (*given.without, *given.models):
        model_spec(name)
    return given


def main() -> None:
    given = parse(sys.argv[1:])
    facts = {name: measure(name, given) for name in MODELS if name not in given.without}
    tables = {"networks": facts_table(facts, given)}
    if given.train:
        for seed in range(given.seeds):
            for way in given.ways:
                for name in given.models:
                    train(way, name, seed, given)
        tables["training"] = scores_table(given)
    for name, lines in tables.items():
        print("\n".join(("", *lines)))
        if given.write:
            write_table(given.write, name, lines)


if __name__ == "__main__":
    run_cli(main)
