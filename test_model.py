"""Render and score the test split, or any folder of mosaics, with the best or any other checkpoint.

Of a raw-to-raw run, the pairs are mapped and scored, in both directions (tasks/raw_testing.py).

python test_model.py [--run NAME] [--step N] [--split val] [--compare RUN_OR_MODEL ...]
python test_model.py --checkpoint FILE --input DIR [--target DIR] --output DIR [--protocol paper]
python test_model.py --run NAME --input DIR --output DIR --submission ntire26

This is a command, not a test: `pytest` collects tests/ only.
"""

if __name__ == "__main__":
    import errors

    errors.exit_on_ctrl_c()

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import storage
from config import Config, to_dict
from config import config as default
from data.conditions import check_noted
from data.folders import mosaics
from data.sensor import CFA_ORDERS
from errors import UserError, run_cli
from evaluation import protocols, rendering, submission
from evaluation.evaluators import PairedEvaluator
from evaluation.history import read_history
from evaluation.metrics import MEASURES
from evaluation.rendering import DEMOSAICED, Candidate, ImageFormat, RenderSet
from evaluation.report import Report, write_report
from evaluation.tables import full_name
from tasks import choice, raw_testing
from tasks.adaptation import MappedReader
from tasks.data import note_trained_on, open_data, open_reference, some_mosaics
from tasks.device import choose_device
from tasks.input import open_reader
from tasks.model import Model, open_model
from tasks.scoring import build_test_evaluator
from training.log import Progress

# --- the command line ------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Exits with status 2 for options that do not fit together."""
    options = argparse.ArgumentParser("test_model.py", description="Render and score mosaics with a model.")
    add = options.add_argument
    choice.add_options(options, unless="--input")
    add("--compare", nargs="+", default=[], metavar="MODEL", help="more runs (their best), files, or released:NAME")
    add("--split", choices=("test", "val"), help="split of the run's dataset (default: test)")
    add("--data-root", metavar="DIR", help="the folder of the run's dataset, if it has moved")
    add("--input", metavar="DIR", help="a folder of mosaics, or one mosaic, instead of a run's dataset")
    add("--target", metavar="DIR", help="photographs with the names of the mosaics, or one: the ground truth")
    add("--adapt", metavar="MAP", help="map --input to the model's camera first: a checkpoint, or map_raw.py --save's")
    add("--adapt-to", choices=("a", "b"), help="which camera of the map is the model's (default: by name or levels)")
    add("--output", metavar="DIR", help="folder of the results (default: the run's test/)")
    add("--protocol", choices=protocols.PROTOCOLS, help="how to score (default: paper)")
    add("--measures", nargs="+", default=[], choices=protocols.all_measures(), metavar="M", help="(the protocol's own)")
    weights = ("pretrained", "auto", "random")
    add("--weights", choices=weights, help="of LPIPS, LPIPS+, DISTS (default: the run's)")
    add("--format", choices=("png", "jpg"), help="image format (default: png, for a submission jpg)")
    add("--quality", type=int, choices=range(1, 101), metavar="Q", help="JPEG quality, 1 to 100 (default: 95)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: cuda if available")
    add("--downsample", type=int, metavar="M", help="of a raw-to-raw mapper: its encoder sees mosaics M times smaller")
    add("--submission", choices=submission.CHALLENGES, help="also pack the images, with a readme, for this challenge")
    add("--extra-data", action="store_true", default=None, help="the readme: the model saw other data, too")
    add("--description", metavar="TEXT", help="the readme: what to say of the method")
    camera = options.add_argument_group("camera of --input (default: the camera of the checkpoint)")
    camera.add_argument("--cfa", choices=CFA_ORDERS, help="colour order of the top left 2x2 pixels")
    camera.add_argument("--black-level", type=float, nargs=4, metavar=("R", "Gr", "Gb", "B"), help="in digital numbers")
    camera.add_argument("--white-level", type=float, help="in digital numbers")
    camera.add_argument("--raw-height", type=int, help="height of .raw files without a header, in pixels")
    camera.add_argument("--raw-width", type=int, help="width of .raw files without a header, in pixels")
    given = options.parse_args(arguments)
    given.named = {name for name, value in vars(given).items() if value != options.get_default(name)}
    given.format = given.format or ("jpg" if given.submission else "png")
    _refuse_ineffective(options, given)
    given.run = given.run or (None if given.input else default.run)
    given.split = given.split or "test"
    return given


def _refuse_ineffective(options: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Exit with status 2 for missing or empty options, and for options that would have no effect."""
    for name in [name for name, value in vars(given).items() if value == ""]:
        options.error(f"--{name.replace('_', '-')} is empty: give it a value, or leave it out")
    if given.input and not (given.output and (given.checkpoint or given.run)):
        options.error("--input needs --output, and --checkpoint or --run")
    camera = ("cfa", "black_level", "white_level", "raw_height", "raw_width")
    needs_input = ("target", *camera, "submission", "adapt")
    for needed, fits, names in (
        ("--input", given.input, needs_input),
        ("the dataset of a run, not --input", not given.input, ("split", "data_root")),
        ("mosaics without --adapt, whose map knows their camera", not given.adapt, camera),
        ("--adapt", given.adapt, ("adapt_to",)),
        ("ground truth: --target", given.target or not given.input, ("protocol", "measures", "weights")),
        ("a checkpoint of a run, not --checkpoint", not given.checkpoint, ("step",)),
        ("--format jpg", given.format == "jpg", ("quality", "submission")),
        ("one model, not --compare", not given.compare, ("submission",)),
        ("--submission", given.submission, ("extra_data", "description")),
    ):
        for name in names:
            if not fits and getattr(given, name) not in (None, []):
                options.error(f"--{name.replace('_', '-')} needs {needed}")


# --- what is tested --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """The checkpoint under test, and the run that is named, if any."""

    run: Path | None
    config: Config | None
    path: Path
    model: Model

    @property
    def own_run(self) -> Path | None:
        """The run that the checkpoint is of; None for a foreign file, which is only tested on the run's dataset."""
        in_run = self.run and self.path.parent.resolve() == (self.run / "checkpoints").resolve()
        return self.run if in_run else None


def open_subject(given: argparse.Namespace, device: torch.device) -> Subject:
    """The checkpoint that the command line names: a file, a step of a run, or the run's best."""
    run, config, path = choice.chosen(given, given.data_root or "")
    model = open_model(str(path), device)
    return Subject(run, config or model.config, path, model)


def open_render_set(given: argparse.Namespace, subject: Subject, device: torch.device) -> RenderSet:
    """The mosaics to render, with their ground truth if there is one."""
    if not given.input:
        splits, reader, reference = open_data(subject.config)
        split, root = splits[given.split], subject.config.data.root or subject.config.data.raw
        if not any(each and each.paired for each in splits.values()):
            if given.protocol or given.measures or given.weights:
                raise UserError(f"the dataset of {given.run} has no pairs: leave out --protocol, --measures, --weights")
            return RenderSet(some_mosaics(splits["train"]), reader, reference, f"mosaics of {root}")
        if not split:
            others = " or ".join(f"--split {name}" for name, each in splits.items() if each and each.paired)
            raise UserError(f"the dataset of {given.run} has no {given.split} pairs: choose {others}, or an --input")
        if subject.own_run:
            note_trained_on(subject.own_run, split)
        return RenderSet(split, reader, reference, f"{given.split} split of {root}")
    if given.target and Path(given.input).is_file() and Path(given.target).is_dir():
        raise UserError(f"--input is one mosaic, and --target a folder: name the photograph of {given.input}")
    split = mosaics(Path(given.input), Path(given.target) if given.target else None)
    reader = open_reader(given, subject.model, split, device)
    check_noted(split.raws, reader.normalisation)
    reference = open_reference(reader, (subject.config or default).data)
    return RenderSet(split, reader, reference, given.input)


def open_candidates(
    given: argparse.Namespace, subject: Subject, render_set: RenderSet, device: torch.device
) -> list[Candidate]:
    """The model under test, and those of --compare. Raises `UserError` if they would overwrite each other's files."""
    folder, camera = _output_folder(given, subject), render_set.reader.sensor

    def build(label: str, target: Path, model: Model, path: Path) -> Candidate:
        model.check_normalised(render_set.reader.normalisation)
        own = not (given.black_level or given.adapt)  # levels of the user, or of the map, override a model's own
        sensor = model.levels_for(camera) if own else camera
        parameters = sum(parameter.numel() for parameter in model.generator.parameters())
        sha256 = storage.sha256_of(path)
        facts = {"checkpoint": str(path), "sha256": sha256, "model": f"{model.name}, {parameters:,} parameters"}
        return Candidate(label, target, lambda mosaic: model.develop(mosaic, sensor), facts)

    name = full_name(subject.path) if subject.run and not subject.own_run else subject.path.stem
    label = given.run if given.run and not given.checkpoint else name
    target = folder if given.output and not given.compare else folder / name
    found = [build(label, target, subject.model, subject.path)]
    for label, name, path in choice.compared(given):
        found.append(build(label, folder / re.sub(r"[^\w.-]", "_", name), open_model(str(path), device), path))
    rendering.refuse_collisions(found, render_set)
    return found


def _output_folder(given: argparse.Namespace, subject: Subject) -> Path:
    return Path(given.output) if given.output else subject.run / "test"


def open_evaluator(
    given: argparse.Namespace, config: Config | None, render_set: RenderSet, device: torch.device
) -> tuple[PairedEvaluator, dict[str, str]]:
    """The measures of the protocol, and lines for the header of the tables; none without ground truth."""
    if not render_set.has_targets:
        return PairedEvaluator({}), {}
    policy = given.weights or (config.backbones.weights if config else "pretrained")
    return build_test_evaluator(render_set.split.photos, given.protocol or "paper", given.measures, policy, device)


# --- the report ------------------------------------------------------------------------------------------------------


def build_report(
    subject: Subject,
    candidate: Candidate,
    history: tuple[list[dict], list[dict], str],
    header: dict[str, str],
    means: list[dict],
    scenes: tuple[list, list[str]],
) -> Report:
    """The report of the model under test, with the `history` that `read_history` returned for its run."""
    log, ranking, ranked_by = history
    start = log[0] if log else {}
    frozen = "; ".join(f"{name}: {source}" for name, source in start.get("weights", {}).items())
    facts = candidate.facts | {"sha256": candidate.facts["sha256"][:12], "frozen networks": frozen} | header
    config = subject.config if subject.own_run else subject.model.config
    return Report(
        title=candidate.label,
        facts={name: fact for name, fact in facts.items() if fact},
        config=to_dict(config) if config else {},
        log=log,
        ranking=ranking,
        ranked_by=ranked_by,
        means=means,
        labels={name: m.heading for name, m in MEASURES.items()},
        digits={name: m.digits for name, m in MEASURES.items()},
        scenes=scenes[0],
        captions=scenes[1],
        warning=start.get("warning", ""),
    )


def main() -> None:
    given = parse(sys.argv[1:])
    if raw_testing.is_of_mappers(given):
        raw_testing.main(given, choice.compared(given))
        return
    device, image_format = choose_device(given.device), ImageFormat(given.format, given.quality or 95)
    subject = open_subject(given, device)
    render_set = open_render_set(given, subject, device)
    candidates = open_candidates(given, subject, render_set, device)
    evaluator, notes = open_evaluator(given, subject.config, render_set, device)
    folder, history = _output_folder(given, subject), read_history(subject.own_run)
    if given.output:
        others = submission.FILES if given.submission else ()
        rendering.reserve(candidates, render_set, image_format, folder, bool(evaluator.functions), others)
    sent = submission.Submission(given.submission, candidates[0].render, device) if given.submission else None
    if sent:
        candidates[0] = replace(candidates[0], render=sent)
    header = {"data": render_set.name, "images": f"{len(render_set.split.raws)}, {given.format}"}
    if isinstance(render_set.reader, MappedReader):
        header["mapped by"] = render_set.reader.summary
    if evaluator.functions:
        candidates.append(Candidate(DEMOSAICED, None, render_set.reference, {}))
    header |= notes
    try:
        with Progress("rendered", 0, len(render_set.split.raws), unit="image") as progress:
            results = rendering.run_test(candidates, render_set, evaluator, image_format, device, progress.update)
    except torch.OutOfMemoryError:
        raise UserError("the device's memory is full: use --device cpu") from None
    means = rendering.write_tables(candidates, results, header, folder)
    page = (folder if given.output else subject.own_run or candidates[0].folder) / "report.html"
    scenes = rendering.choose_scenes(candidates, render_set, results[0][0], image_format)
    write_report(page, build_report(subject, candidates[0], history, header, means, scenes))
    rendering.print_means(means, header)
    print(f"images: {candidates[0].folder}\nreport: {page}")
    if sent:
        foreign = subject.model.config is None  # a released model, which has seen other data
        readme = sent.readme(candidates[0].facts["model"], given.extra_data or foreign, given.description or "")
        archive = sent.pack(folder, map(image_format.name_of, render_set.split.raws), readme)
        print(f"submission: {archive}, checked. Its {submission.README}:\n{readme}", end="")


if __name__ == "__main__":
    run_cli(main)
