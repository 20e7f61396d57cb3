"""A run's report: one self-contained HTML file to compare test images in, and to share.

It shows the values that it is given; the caller has rendered, scored and sorted them.
"""

import base64
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

import storage
from errors import UserError
from evaluation.charts import learning_curves, ranking_chart
from evaluation.health import alarms
from evaluation.tables import folder_of, read_best, read_ranking

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
    templates = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    page = jinja2.Environment(
        loader=templates, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    content = page.render(
        report=report,
        error_factor=ERROR_FACTOR,
        quality=QUALITY,
        means=_table(report.means, report),
        ranking=_table(report.ranking[:MAX_RANKS], report),
        ranking_chart=ranking_chart(report.ranking, column=report.ranked_by.partition(" ")[0]),
        charts=learning_curves(report.log),
        alarms=alarms(report.log),
        config=_sections(report.config),
        scenes=[_scene(scene, caption, report) for scene, caption in zip(report.scenes, report.captions, strict=True)],
    )
    storage.write_bytes(path, content.encode(errors="replace"))  # file names need not be Unicode


def read_history(run: Path | None) -> tuple[list[dict], list[dict], str]:
    """(lines of log.jsonl, ranking, what it is ranked by) of a run; empty without one.

    Raises `UserError` if one of the files is damaged.
    """
    if run is None:
        return [], [], ""
    lines, best = _read_log(run / "log.jsonl"), read_best(run)
    if not best:
        return lines, [], ""
    header, ranking = read_ranking(folder_of(run, best["protocol"].split(":")[0]) / "ranking.csv")
    if not (ranking and {"data", "protocol"} <= header.keys()):
        return lines, [], ""
    return lines, ranking, f"{best['ranked_by']} on {header['data'].split(',')[0]}; {header['protocol']}"


def _read_log(path: Path) -> list[dict]:
    """The lines of a log.jsonl; the last one may be incomplete.

    Raises `UserError` for another line that fit.py cannot have written.
    """
    texts = path.read_bytes().splitlines() if path.is_file() else []
    if texts and not texts[-1].endswith(b"}"):
        texts.pop()  # the run was stopped, or is writing it now
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError):  # RecursionError: thousands of nested brackets
            lines.append(None)
        if not _is_log_line(lines[-1]):
            raise UserError(f"{path}, line {number} is damaged: remove this line, then the report shows the others")
    return lines


def _is_log_line(line: object) -> bool:
    """Whether `line` is the log's first line, which has facts, or has numbers of a step, of which some may be NaN."""
    if not isinstance(line, dict) or not isinstance(line.get("stage"), str):
        return False
    if "step" not in line:
        weights = line.get("weights", {})
        return isinstance(weights, dict) and isinstance(line.get("warning", ""), str)
    numbers = [value for name, value in line.items() if name != "stage"]
    small = all(isinstance(x, float) or (isinstance(x, int) and abs(x) < 1 << 63) for x in numbers)
    return small and isinstance(line["step"], int)


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


def _table(rows: list[dict], report: Report) -> dict:
    """{"columns": [(heading, "number" or "text")], "rows": [[cell]]} with every key of the rows as a column."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kinds = ["text" if any(isinstance(row.get(column), str) for row in rows) else "number" for column in columns]
    headings = [report.labels.get(column, column) for column in columns]
    cells = [[_cell(row.get(column), report.digits.get(column)) for column in columns] for row in rows]
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
