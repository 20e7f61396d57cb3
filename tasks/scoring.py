"""How the checkpoints of an ISP run are scored: on which files, against what, and where the scores are stored."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

import storage
from config import Compute, Config, Released
from data.folders import Split, unpaired
from data.loader import whole_files
from data.patches import centre, photo_tensor
from data.photographs import read_photo
from data.reference import Reference
from errors import UserError
from evaluation import protocols
from evaluation.evaluators import PairedEvaluator, UnpairedEvaluator
from evaluation.kept_features import KeptFeatures
from evaluation.metrics import MS_SSIM_MINIMUM
from evaluation.rendering import shorter_side
from evaluation.scoring import Scorer, ScoringSet
from evaluation.tables import ScoreTables, folder_of
from pretrained.perceptual import PERCEPTUAL
from pretrained.set_features import SET_FEATURES
from tasks.data import note_trained_on, open_data
from tasks.features import Networks
from tasks.model import Model, open_model
from training.log import Progress

PROTOCOL = "paper"  # the usual one
UNPAIRED_FILES = 256  # at most this many mosaics, evenly spaced, are scored without pairs
PHOTOGRAPHS = 256  # at most this many photographs, evenly spaced, represent the photographs of a run
T = TypeVar("T")


def open_tables(run: Path, config: Config, rank: str, protocol: str, measures: Sequence[str] = ()) -> ScoreTables:
    """The score tables of a run: of a `protocol`, with ground truth, or with `rank` "unpaired", without it.

    No protocol, "", is `PROTOCOL`.
    Checkpoints are ranked by the first of the `measures`; without any, by the PSNR that the run was validated by.
    """
    splits, reader, _ = open_data(config)
    split = validation_split(splits, rank)
    photos = _photographs(splits["train"], config) if rank == "unpaired" else split.photos
    files = [(path.name, storage.fingerprint(path)) for path in (*split.raws, *photos)]
    digest = hashlib.sha256(repr((files, reader.facts(split.raws))).encode()).hexdigest()[:12]
    facts = {"data": f"{len(split.raws)} files, {digest}", "weights": config.backbones.weights}
    if rank == "unpaired":
        seen = f"{config.backbones.vit} and AlexNet; demosaicing {config.data.demosaic}"
        facts = {"protocol": UnpairedEvaluator.summary, **facts, "features": seen}
        return ScoreTables(folder_of(run, rank), rank, UnpairedEvaluator.columns, facts)
    protocol = protocol or PROTOCOL
    ours = protocols.find_protocol(protocol, "images").functions is None
    floats = config.quirks.float_psnr and ours
    note_trained_on(run, split)
    columns = protocols.choose(protocol, measures or ("psnr_float" if floats else "psnr",))
    protocols.refuse_single(columns, len(split.photos))
    if not any(protocols.needs_network(protocol, column) for column in columns):
        del facts["weights"]
    facts = {"protocol": f"{protocol}: {protocols.PROTOCOLS[protocol].summary}", **facts}
    return ScoreTables(folder_of(run, protocol), protocol, columns, facts)


def validation_split(splits: dict[str, Split], rank: str) -> Split:
    """The files on which checkpoints are compared. Raises `UserError` if there are no pairs, or too few files (KID)."""
    if rank == "unpaired":
        split = splits["val"] or splits["train"]
        mosaics, photographs = len(split.raws), len(splits["train"].photos)
        if min(mosaics, photographs) < 2:
            raise UserError(
                f"--rank unpaired needs at least two mosaics and two photographs, but this run has {mosaics} and "
                f"{photographs}: add files to its dataset, or rank with pairs (--rank paired)"
            )
        every = -(-len(split.raws) // UNPAIRED_FILES)
        return Split(split.raws[::every], (), paired=False)
    if not splits["val"]:
        raise UserError("this run has no validation pairs; score its checkpoints without pairs: --rank unpaired")
    return splits["val"]


def open_scorer(config: Config, tables: ScoreTables, device: torch.device, at_once: int = 0) -> Scorer:
    """A scorer of a run's checkpoints for these tables."""

    def load(pixels: int) -> ScoringSet:
        return _load_scoring_set(config, tables, device, pixels)

    def open_fitting(source: str, device: torch.device) -> Model:
        model = open_model(source, device)
        model.check_normalised(config.data.normalise)
        return model

    return Scorer(tables, load, open_fitting, device, at_once)


def _load_scoring_set(config: Config, tables: ScoreTables, device: torch.device, pixels: int) -> ScoringSet:
    splits, reader, reference = open_data(config)
    split = validation_split(splits, tables.protocol)
    batches = [(names, mosaic.to(device), target) for names, mosaic, target in whole_files(split, reader, pixels)]
    if tables.protocol == "unpaired":
        evaluator, notes = build_unpaired_evaluator(config, splits["train"], reference, device, tables)
        evaluator.calibrate(_shown("demosaiced", [mosaic for _, mosaic, _ in batches], len(batches), "batch"))
    else:
        functions, notes = build_measures(tables.protocol, tables.columns, config.backbones.weights, device)
        evaluator = PairedEvaluator(functions)
    files = []
    for names, mosaic, target in batches:
        prepared = evaluator.prepare(mosaic, None if target is None else target.to(device))
        files.append((names, mosaic, prepared))
    return ScoringSet(reader.sensor, files, evaluator, notes)


def build_measures(
    protocol: str, columns: Sequence[str], weights: str, device: torch.device
) -> tuple[dict[str, Callable[[Tensor, Tensor], Tensor]], dict[str, str]]:
    """(a protocol's measures by column, where the weights of those with a network are from).

    `weights` is the policy; KID and FID always take published weights. Raises `UserError` if there are none.
    """
    networks = {}

    def network(column: str) -> nn.Module:
        if column in SET_FEATURES:  # distances between sets of random features say nothing
            networks[column] = SET_FEATURES[column]("pretrained").to(device)
        else:
            networks[column] = PERCEPTUAL[column](weights).to(device)
        return networks[column]

    functions = protocols.build(protocol, columns, network)
    return functions, {column: network.provenance for column, network in networks.items()}


def build_test_evaluator(
    photos: Sequence[Path], protocol: str, measures: Sequence[str], weights: str, device: torch.device
) -> tuple[PairedEvaluator, dict[str, str]]:
    """The measures of a protocol for images with these ground truths, and lines for the header of the tables.

    Measures that cannot be computed here are left out, with a note, unless the user has named them in `measures`.
    """
    notes = {"protocol": f"{protocol}: {protocols.find_protocol(protocol, 'images').summary}"}
    columns = list(protocols.choose(protocol, measures))
    protocols.refuse_single(columns, len(photos))
    side = min(map(shorter_side, photos))
    if "ms_ssim" in columns and side < MS_SSIM_MINIMUM and not measures:
        columns.remove("ms_ssim")
        notes["ms_ssim"] = f"left out: it needs sides of {MS_SSIM_MINIMUM} pixels, the smallest here is {side}"
    functions, sources = build_measures(protocol, columns, weights, device)
    for column, source in sources.items():
        if source.startswith("random") and not measures:
            del functions[column]
            sources[column] = "left out: its weights are not on this machine"
    return PairedEvaluator(functions), notes | sources


def build_unpaired_evaluator(
    config: Config, train: Split, reference: Reference, device: torch.device, tables: ScoreTables | None = None
) -> tuple[UnpairedEvaluator, dict[str, str]]:
    """(the evaluator that needs no pairs, made of a run's AlexNet, ViT and photographs; where those are from).

    Features of photographs and references are kept in the folder of the `tables`, if there are any. The evaluator
    computes in float32, without compilation, on normalised inputs, whatever the run did, so that scores of different
    runs compare.
    """
    backbones = dataclasses.replace(config.backbones, vit_normalise=True)
    plain = {"compute": Compute(), "as_released": False, "released": Released(), "backbones": backbones}
    networks = Networks(dataclasses.replace(config, **plain), device)
    chosen = _photographs(train, config)
    frozen, keep = (networks("alexnet"), networks("vit")), {}
    if tables:
        rendering = {"reference": repr(dataclasses.replace(reference, demosaic=config.data.demosaic))}
        keep["keep"] = KeptFeatures(tables.folder, tables.facts | networks.provenance | rendering)
    with torch.inference_mode():
        images = (photo_tensor(centre(read_photo(path))).to(device) for path in chosen)
        evaluator = UnpairedEvaluator(*frozen, reference, _shown("photographs", images, len(chosen), "image"), **keep)
    return evaluator, networks.provenance | {"photographs": str(len(chosen))}


def _shown(what: str, items: Iterable[T], count: int, unit: str) -> Iterator[T]:
    """The items, with a progress bar as soon as the first one is asked for."""
    with Progress(what, 0, count, unit=unit) as progress:
        yield from progress.over(items)


def _photographs(train: Split, config: Config) -> tuple[Path, ...]:
    """The photographs that outputs are compared with, of those that the run is trained on."""
    photos = unpaired(train, config.data.unpaired, config.seed, config.quirks.permutation).photos
    return photos[:: -(-len(photos) // PHOTOGRAPHS)]
