"""A run's report: one self-contained HTML file to compare test images in, and to share.

It shows the values that it is given; the caller has rendered, scored and sorted them.
"""

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

import storage
from errors import UserError
from evaluation.charts import learning_curves, ranking_chart
from evaluation.health import alarms

ERROR_FACTOR = 4  # by which an error picture amplifies the difference
MAX_WIDTH = 1024  # pixels of a picture in the page; wider ones are scaled down
COLUMN = 512  # CSS pixels to which small pictures are enlarged
QUALITY = 92  # of the page's JPEGs, which keep the full resolution of colours
MAX_RANKS = 10  # rows of the ranking
RESERVED = ("demosaiced", "output", "target", "error")
SIDES = {"left": ("demosaiced", "output", "error"), "right": ("output", "target", "error")}  # each side's buttons


@dataclass(frozen=True)
class Scene:
    """A test image: pictures (H, W, 3) uint8 sRGB of one size, and its scores by column."""

    name: str
    demosaiced: np.ndarray  # the demosaiced reference
    output: np.ndarray
    target: np.ndarray | None  # None: no ground truth
    scores: dict[str, float]  # {"psnr": 23.1, ...}; may be empty
    compared: dict[str, np.ndarray] = field(default_factory=dict)  # the images of other models, by label


@dataclass(frozen=True)
class Report:
    """Everything that the page shows. Empty parts are left out."""

    title: str  # the run's name
    facts: dict[str, str]  # of model and data: {"model": "efficient (3,060 parameters)", ...}
    config: dict  # of config.json: sections of values
    log: list[dict]  # the lines of log.jsonl
    ranking: list[dict]  # checkpoints, best first: {"rank": 1, "checkpoint": .., "step": 2000, "psnr": 22.9, ...}
    ranked_by: str  # "psnr on 64 validation pairs, protocol paper": its first word is the ranking's column
    means: list[dict]  # the comparison: {"model": name, "images": n, "psnr": .., ...}
    labels: dict[str, str]  # column -> heading, {"psnr": "PSNR (dB)", ...}
    digits: dict[str, int]  # column -> decimals
    scenes: list[Scene]  # in the order to show
    captions: list[str]  # one for each scene: "worst 1 of 64"
    warning: str = ""  # a caveat to show before all scores; empty if there is none


def write_report(path: Path, report: Report) -> None:
    """Write the page to `path`."""
    write_page(
        path,
        "report.html",
        title=report.title,
        kind="Learned ISP, report of the run",
        warnings=[report.warning] if report.warning else [],
        report=report,
        error_factor=ERROR_FACTOR,
        quality=QUALITY,
        means=table(report.means, report.labels, report.digits),
        ranking=table(report.ranking[:MAX_RANKS], report.labels, report.digits),
        ranking_chart=ranking_chart(report.ranking, column=report.ranked_by.partition(" ")[0]),
        charts=learning_curves(report.log),
        alarms=alarms(report.log),
        config=_sections(report.config),
        scenes=[_scene(scene, caption, report) for scene, caption in zip(report.scenes, report.captions, strict=True)],
    )


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page of templates/, which extends page.html: that one shows the `title`, its `kind`, and `warnings`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = environment.get_template(template).render(values)
    storage.write_bytes(path, content.encode(errors="replace"))  # file names need not be Unicode


def refuse_foreign(path: Path, kind: str, sentence: str) -> None:
    """Raise `UserError`, "PATH exists and is " and the `sentence`, unless nothing or a page of this `kind` is there."""
    if path.is_file():
        with open(path, "rb") as file:
            own = kind.encode() in file.read(2000)
    else:
        own = not path.exists()
    if not own:
        raise UserError(f"{path} exists and is {sentence}")


# --- tables ----------------------------------------------------------------------------------------------------------


def _cell(value: object, digits: int | None) -> str:
    """The text of a table's cell: numbers with `digits` decimals (None: as many as needed, 0 or 4), a dash for none."""
    if value is None or value == "" or value != value:
        return "–"
    if not isinstance(value, int | float | np.number):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if digits is None:
        digits = 0 if value == int(value) else 4
    return f"{value:.{digits}f}".replace("-", "−")


def table(rows: list[dict], labels: Mapping[str, str], digits: Mapping[str, int]) -> dict:
    """A table for a page, {"columns": [(heading, "number" or "text")], "rows": [[cell]]}.

    Every key of the `rows` is a column; `labels` are the headings of some, `digits` the decimals of their numbers.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kinds = ["text" if any(isinstance(row.get(column), str) for row in rows) else "number" for column in columns]
    headings = [labels.get(column, column) for column in columns]
    cells = [[_cell(row.get(column), digits.get(column)) for column in columns] for row in rows]
    return {"columns": list(zip(headings, kinds, strict=True)), "rows": cells}


def _sections(config: dict) -> dict[str, dict[str, str]]:
    """Two levels of a config as text: {section: {name: value}}; values outside any section are in the first, "run"."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(text, value))
        return value if isinstance(value, str) else json.dumps(value, default=str)

    sections = {name: section for name, section in config.items() if isinstance(section, dict)}
    plain = {name: value for name, value in config.items() if name not in sections}
    sections = ({"run": plain} if plain else {}) | sections
    return {name: {key: text(value) for key, value in section.items()} for name, section in sections.items()}


# --- test images -----------------------------------------------------------------------------------------------------


def error_picture(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The absolute difference of two (H, W, 3) uint8 pictures times `ERROR_FACTOR`, clipped: uint8."""
    difference = np.abs(output.astype(np.int16) - target)
    return (ERROR_FACTOR * difference).clip(0, 255).astype(np.uint8)


def _data_uri(picture: np.ndarray, size: tuple[int, int]) -> str:
    """(H, W, 3) uint8 as a JPEG of `size` (width, height), for the `src` of an <img>."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scene(scene: Scene, caption: str, report: Report) -> dict:
    """The values that the template shows for a scene."""
    pictures, has_target = {"demosaiced": scene.demosaiced, "output": scene.output}, scene.target is not None
    if has_target:
        pictures |= {"target": scene.target, "error": error_picture(scene.output, scene.target)}
    compared = {name if name not in RESERVED else f"model {name}": other for name, other in scene.compared.items()}
    pictures |= compared
    full_height, full_width = scene.output.shape[:2]
    width = min(full_width, MAX_WIDTH)
    height = max(1, round(full_height * width / full_width))
    return {
        "name": scene.name,
        "caption": caption,
        "size": f"{full_width} × {full_height}" + (f", shown as {width} × {height}" if width < full_width else ""),
        "width": width,
        "height": height,
        "page_width": width * max(1, COLUMN // width),  # a whole multiple, so that all pixels are shown equally large
        "pictures": {name: _data_uri(picture, (width, height)) for name, picture in pictures.items()},
        "sides": {side: [*(name for name in names if name in pictures), *compared] for side, names in SIDES.items()},
        "compared": list(compared),
        "shown": {"left": "output", "right": "target"} if has_target else {"left": "demosaiced", "right": "output"},
        "scores": {
            report.labels.get(name, name): _cell(value, report.digits.get(name)) for name, value in scene.scores.items()
        },
    }
