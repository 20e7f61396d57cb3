"""A run's report: one HTML file that needs nothing else, to look at test images in and to hand on.

It shows what it is given; whoever calls it has rendered, scored and sorted.
"""

import base64
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from training.checkpoint import write_bytes

AMPLIFIED = 4  # how many times an error picture shows the difference
WIDEST = 1024  # pixels of a picture in the page
COLUMN = 512  # CSS pixels that the page gives a small picture
QUALITY = 92  # of the page's JPEGs, which keep their full colour resolution
RANKS = 10  # rows of the ranking
POINTS = 200  # of a curve: more than its figure has room for
COLOURS = 9  # series' colours in templates/report.css
SIDES = {"left": ("demosaiced", "output", "error"), "right": ("output", "target", "error")}  # a scene's choices


@dataclass(frozen=True)
class Scene:
    """A test image: pictures (H, W, 3) uint8 sRGB of one size, and its scores by column."""

    name: str
    demosaiced: np.ndarray  # the demosaiced reference
    output: np.ndarray
    target: np.ndarray | None  # None where there is no ground truth
    scores: dict[str, float]  # {"psnr": 23.1, ...}; may be empty


@dataclass(frozen=True)
class Report:
    """All that the page shows. What is empty is left out."""

    title: str  # the run's name
    facts: dict[str, str]  # what ran: {"model": "efficient (3,060 parameters)", ...}
    config: dict  # of config.json: sections of values
    log: list[dict]  # the lines of log.jsonl
    ranking: list[dict]  # checkpoints, best first: {"rank": 1, "checkpoint": .., "step": 2000, "psnr": 22.9, ...}
    ranked_by: str  # "psnr on 64 validation pairs, protocol paper": its first word is the ranking's column
    means: list[dict]  # the comparison: {"model": name, "images": n, "psnr": .., ...}
    labels: dict[str, str]  # column -> heading, {"psnr": "PSNR (dB)", ...}
    digits: dict[str, int]  # column -> decimals
    scenes: list[Scene]  # in the order to show
    captions: list[str]  # one for each scene: "worst 1 of 64"
    warning: str = ""  # what a reader must know before any figure


def write_report(path: Path, report: Report) -> None:
    """Write the page to `path`, whole or not at all."""
    folder = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    page = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")
    content = page.render(
        report=report,
        amplified=AMPLIFIED,
        quality=QUALITY,
        sides=SIDES,
        means=_table(report.means, report),
        ranking=_table(report.ranking[:RANKS], report),
        ranking_chart=_ranking_chart(report),
        charts=_charts(report.log),
        config=_sections(report.config),
        scenes=[_scene(scene, caption, report) for scene, caption in zip(report.scenes, report.captions, strict=True)],
    )
    write_bytes(path, content.encode(errors="replace"))  # a file's name need not be Unicode


# --- tables ----------------------------------------------------------------------------------------------------------


def _number(value: object, digits: int | None) -> str:
    """A cell: numbers with `digits` decimals, a dash for none."""
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
    """{"columns": [(heading, "number" or "text")], "rows": [[cell]]} of all that the rows name, in their order."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kinds = ["text" if any(isinstance(row.get(column), str) for row in rows) else "number" for column in columns]
    headings = [report.labels.get(column, column) for column in columns]
    cells = [[_number(row.get(column), report.digits.get(column)) for column in columns] for row in rows]
    return {"columns": list(zip(headings, kinds, strict=True)), "rows": cells}


def _sections(config: dict) -> dict[str, dict[str, str]]:
    """Two levels of a config as text; what stands outside any section is the first, "run"."""

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
    """The absolute difference of two (H, W, 3) uint8 pictures, `AMPLIFIED` times, clipped: uint8."""
    difference = np.abs(output.astype(np.int16) - target)
    return (AMPLIFIED * difference).clip(0, 255).astype(np.uint8)


def _data_uri(picture: np.ndarray, size: tuple[int, int]) -> str:
    image, buffer = Image.fromarray(picture), io.BytesIO()
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scene(scene: Scene, caption: str, report: Report) -> dict:
    """What the template shows of a scene."""
    pictures, truth = {"demosaiced": scene.demosaiced, "output": scene.output}, scene.target is not None
    if truth:
        pictures |= {"target": scene.target, "error": error_picture(scene.output, scene.target)}
    full_height, full_width = scene.output.shape[:2]
    width = min(full_width, WIDEST)
    height = max(1, round(full_height * width / full_width))
    return {
        "name": scene.name,
        "caption": caption,
        "size": f"{full_width} × {full_height}" + (f", shown as {width} × {height}" if width < full_width else ""),
        "width": width,
        "height": height,
        "page_width": width * max(1, COLUMN // width),  # a whole multiple: each pixel is shown alike
        "pictures": {name: _data_uri(picture, (width, height)) for name, picture in pictures.items()},
        "shown": {"left": "output", "right": "target"} if truth else {"left": "demosaiced", "right": "output"},
        "scores": {
            report.labels.get(name, name): _number(value, report.digits.get(name))
            for name, value in scene.scores.items()
        },
    }


# --- curves ----------------------------------------------------------------------------------------------------------

# matplotlib draws with stand-ins, which become the colours of the style sheet.
STAND_INS = [f"#00ff{i:02x}" for i in range(COLOURS + 1)]
INK = STAND_INS[0]
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True)
class Line:
    """A curve: `values` at `steps`, in a colour of the style sheet (0: the text's)."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    colour: int = 0
    dashed: bool = False


def _series(log: Iterable[dict]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, int]]:
    """Of a log's lines: {statistic: (steps over all stages, values)}, and {stage: the step that it starts from}."""
    points, starts, step = {}, {}, 0
    for line in log:
        if "step" not in line:
            continue
        first = starts.setdefault(line["stage"], step)
        step = first + line["step"]
        for name in [name for name in line if name not in ("stage", "step")]:
            points.setdefault(name, []).append((step, line[name] if math.isfinite(line[name]) else math.nan))
    return {name: tuple(np.array(pairs, dtype=float).T) for name, pairs in points.items()}, starts


def _charts(log: list[dict]) -> list[dict]:
    """The learning curves, as far as the log has them."""
    series, starts = _series(log)
    terms = [name.removeprefix("loss/") for name in series if name.startswith("loss/")]
    critics = list(dict.fromkeys(name.split("/")[1] for name in series if name.startswith("critic/")))
    colours = {term: 1 + i % COLOURS for i, term in enumerate(dict.fromkeys([*terms, *critics]))}
    content = [term for term in terms if term not in critics]

    def lines(names: list[str], solid: str, dashed: str = "") -> list[Line]:
        return [
            Line(name, *series[pattern.format(name)], colours.get(name, 0), pattern == dashed)
            for pattern in (solid, dashed)
            for name in names
            if pattern.format(name) in series
        ]

    charts = (
        ("Validation PSNR", "dB, mean over the pairs", lines(["val_psnr"], "{}"), False),
        ("Content losses", "each term before weights and balance", lines(content, "loss/{}"), True),
        ("Gradient norms", "of each term at the generator, before balance", lines(terms, "norm/{}"), True),
        (
            "Adversarial losses",
            "generator solid; critic, with its penalties, dashed",
            lines(critics, "loss/{}", "critic/{}/loss"),
            False,
        ),
        ("Critics’ logit gaps", "mean of D(real) − D(generated)", lines(critics, "critic/{}/gap"), False),
        (
            "Gradient penalties",
            "R1 (real) solid, R2 (generated) dashed",
            lines(critics, "critic/{}/r1", "critic/{}/r2"),
            True,
        ),
    )
    return [
        {
            "title": title,
            "note": note,
            "legend": {line.name: line.colour for line in drawn if line.colour},
            "svg": draw(title, drawn, starts, logarithmic),
        }
        for title, note, drawn, logarithmic in charts
        if any((line.values > (0 if logarithmic else -math.inf)).any() for line in drawn)
    ]


def _ranking_chart(report: Report) -> str:
    """Score against step of all ranked checkpoints; nothing where there are not two to compare."""
    column = report.ranked_by.partition(" ")[0]
    points = [(row.get("step"), row.get(column)) for row in report.ranking]
    points = sorted(point for point in points if all(isinstance(x, int | float) and math.isfinite(x) for x in point))
    if len(points) < 2:
        return ""
    return draw("Score of each checkpoint", [Line(column, *np.array(points, dtype=float).T)], {}, False)


def smooth(values: np.ndarray) -> np.ndarray:
    """The running mean over a 30th of a curve, of what is finite."""
    window, finite = np.ones(len(values) // 30 | 1), np.isfinite(values)
    total, count = (np.convolve(x, window, "same") for x in (np.where(finite, values, 0), finite))
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def draw(title: str, lines: list[Line], starts: dict[str, int], logarithmic: bool) -> str:
    """An SVG element of curves over steps, with a mark where each later stage starts.

    Its fonts and colours are the page's, so that it reads in light and in dark.
    """
    import matplotlib  # here: it makes folders in the user's home
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "axes.labelsize": 10}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        axes = figure.add_subplot(xlabel="step")
        for line in lines:
            _draw_line(axes, line, sorted(starts.values()), logarithmic)
        if logarithmic:
            _logarithmic(axes)
        for stage, start in starts.items():
            if any(line.steps.min() < start < line.steps.max() for line in lines):
                axes.axvline(start, color=INK, alpha=0.4, linewidth=0.8)
                axes.annotate(
                    stage, (start, 1), (3, -3), ("data", "axes fraction"), "offset points", color=INK, va="top"
                )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))
        axes.grid(color=INK, alpha=0.12, linewidth=0.8)
        axes.tick_params(length=0, which="both", labelcolor=INK)
        axes.xaxis.label.set_color(INK)
        axes.spines[:].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    return _for_page(buffer.getvalue(), title)


def _draw_line(axes, line: Line, starts: list[int], logarithmic: bool) -> None:
    """The noisy curve faint and its running mean strong, each stage by itself; few points with dots."""
    style = {"color": STAND_INS[line.colour], "linestyle": "--" if line.dashed else "-"}
    values = np.where(line.values > 0, line.values, np.nan) if logarithmic else line.values
    if not line.colour:
        axes.plot(line.steps, values, linewidth=1.5, marker="o", markersize=3, **style)
        return
    for part in np.split(np.arange(len(values)), np.searchsorted(line.steps, starts, side="right")):
        if len(part):
            some = np.unique(np.linspace(0, len(part) - 1, POINTS).astype(int))
            axes.plot(line.steps[part][some], values[part][some], linewidth=0.8, alpha=0.25, **style)
            axes.plot(line.steps[part][some], smooth(values[part])[some], linewidth=1.5, **style)


def _logarithmic(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = np.log10(axes.get_ylim())
    powers = math.floor(high) - math.ceil(low) + 1
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if powers > 2 else (1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _for_page(svg: str, title: str) -> str:
    """matplotlib's SVG file as an element of the page."""
    svg = re.sub(r"(?s)<style.*?</style>| id=\"[\w.]+_\d+\"|font-family: [^;\"]*", "", svg)
    svg = re.sub(r"#00ff(\w\w)", lambda m: f"var(--series-{int(m[1], 16)})", svg)
    box = re.search(r"viewBox=\"[^\"]*\"", svg)[0]
    return re.sub(r"(?s).*?<svg.*?>", f'<svg {box} role="img" aria-label="{title}">', svg, count=1)
