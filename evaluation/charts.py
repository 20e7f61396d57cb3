"""Charts for pages, as SVG elements: learning curves of one log or several, and the scores of ranked checkpoints."""

import html
import io
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

Series = tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, int]]  # see `read_series`
MAX_POINTS = 200  # drawn of each curve: more would not be visible
COLOURS = 9  # series' colours in templates/page.css
# matplotlib draws with these colours; `_for_page` replaces number i by the style sheet's variable --series-i.
PLACEHOLDERS = [f"#00ff{i:02x}" for i in range(COLOURS + 1)]
INK = PLACEHOLDERS[0]
SINGLE = ("validation", "structure")  # groups of a single name, which the chart's title says
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True)
class Line:
    """A curve: `values` at `steps`, in a colour of the style sheet (0: that of the text)."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    colour: int = 0
    dashed: bool = False
    dots: bool = False  # few values: draw them as joined dots, not smoothed
    starts: Mapping[str, int] = field(default_factory=dict)  # {stage: the step at which it starts}


@dataclass(frozen=True)
class Chart:
    """A chart of the learning curves: the lines that it has, if the log has them."""

    title: str
    note: str
    group: str  # the names that it has a line for: "validation", "content", "terms", "critics", ...
    solid: str  # the log's statistic of a solid line; {} is the name
    dashed: str = ""  # the log's statistic of a dashed line, if any
    logarithmic: bool = False


CHARTS = (
    Chart("Validation PSNR", "dB, mean over the pairs", "validation", "{}"),
    Chart("Content losses", "each term, before weighting and balancing", "content", "loss/{}", logarithmic=True),
    Chart(
        "Gradient norms",
        "of each term at the generator’s parameters, before balancing",
        "terms",
        "norm/{}",
        logarithmic=True,
    ),
    Chart(
        "Adversarial losses",
        "solid: generator; dashed: critic, including its penalties",
        "critics",
        "loss/{}",
        "critic/{}/loss",
    ),
    Chart("Mesh and colour cast", "grey levels of 255; alarms at 1.5 and 20", "levels", "health/{}", logarithmic=True),
    Chart("Structure", "lowest correlation of a colour with the mosaic’s; alarm at 0.5", "structure", "health/{}"),
    Chart("Critics’ logit gaps", "mean of D(real) − D(generated)", "critics", "critic/{}/gap"),
    Chart(
        "Gradient penalties",
        "solid: R1 (real images); dashed: R2 (generated images)",
        "critics",
        "critic/{}/r1",
        "critic/{}/r2",
        logarithmic=True,
    ),
)


def learning_curves(log: list[dict]) -> list[dict]:
    """The charts for which the lines of log.jsonl have values: {"title", "note", "legend": {name: colour}, "svg"}."""
    series = read_series(log)
    groups = _groups(series[0])
    colours = {name: 1 + i % COLOURS for i, name in enumerate(dict.fromkeys(groups["terms"] + groups["critics"]))}
    colours |= {"mesh": 1, "cast": 2}
    drawn = []
    for chart in CHARTS:
        lines = [
            _line(chart, pattern, name, series, name, colours.get(name, 0))
            for pattern in (chart.solid, chart.dashed)
            for name in groups[chart.group]
            if pattern.format(name) in series[0]
        ]
        drawn += _drawn(chart, chart.title, lines)
    return drawn


def compared_curves(logs: Mapping[str, list[dict]]) -> list[dict]:
    """The same of several runs, {run: lines of log.jsonl}: a chart for each term and critic, a colour for each run.

    At most `COLOURS` runs can be told apart.
    """
    runs = {run: read_series(log) for run, log in logs.items()}
    groups = _groups(dict.fromkeys(name for statistics, _ in runs.values() for name in statistics))
    drawn = []
    for chart in CHARTS:
        for name in groups[chart.group]:
            lines = [
                _line(chart, pattern, name, series, run, colour)
                for pattern in (chart.solid, chart.dashed)
                for colour, (run, series) in enumerate(runs.items(), 1)
                if pattern.format(name) in series[0]
            ]
            drawn += _drawn(chart, chart.title if chart.group in SINGLE else f"{chart.title}: {name}", lines)
    return drawn


def _groups(statistics: Iterable[str]) -> dict[str, list[str]]:
    """The names that the charts of each group have lines for."""
    terms = [name.removeprefix("loss/") for name in statistics if name.startswith("loss/")]
    critics = list(dict.fromkeys(name.split("/")[1] for name in statistics if name.startswith("critic/")))
    content = [term for term in terms if term not in critics]
    groups = {"validation": ["val_psnr"], "content": content, "terms": terms, "critics": critics}
    return groups | {"levels": ["mesh", "cast"], "structure": ["structure"]}


def _line(chart: Chart, pattern: str, name: str, series: Series, label: str, colour: int) -> Line:
    statistics, starts = series
    dashed, dots = pattern == chart.dashed, chart.group == "validation"
    return Line(label, *statistics[pattern.format(name)], colour, dashed, dots, starts)


def _drawn(chart: Chart, title: str, lines: list[Line]) -> list[dict]:
    """[the chart for the page], or nothing if no value of the lines can be drawn."""
    if not any((line.values > (0 if chart.logarithmic else -math.inf)).any() for line in lines):
        return []
    legend = {line.name: line.colour for line in lines if line.colour}
    return [{"title": title, "note": chart.note, "legend": legend, "svg": draw(title, lines, chart.logarithmic)}]


def ranking_chart(ranking: list[dict], column: str) -> str:
    """The SVG of the ranked checkpoints' scores in `column` over their steps; empty for fewer than two checkpoints."""
    points = [(row.get("step"), row.get(column)) for row in ranking]
    points = sorted(point for point in points if all(isinstance(x, int | float) and math.isfinite(x) for x in point))
    if len(points) < 2:
        return ""
    return draw("Score of each checkpoint", [Line(column, *np.array(points, dtype=float).T, dots=True)], False)


def read_series(log: Iterable[dict]) -> Series:
    """Lines of log.jsonl -> ({statistic: (steps, values)}, {stage: the step at which it starts}).

    Steps count over all stages; values that are not finite become NaN.
    """
    points, starts, step = {}, {}, 0
    for line in log:
        if "step" not in line:
            continue
        first = starts.setdefault(line["stage"], step)
        step = first + line["step"]
        for name in [name for name in line if name not in ("stage", "step")]:
            points.setdefault(name, []).append((step, line[name] if math.isfinite(line[name]) else math.nan))
    return {name: tuple(np.array(pairs, dtype=float).T) for name, pairs in points.items()}, starts


def smooth(values: np.ndarray) -> np.ndarray:
    """The running mean of the finite values, with a window of a 30th of the curve."""
    window, finite = np.ones(len(values) // 30 | 1), np.isfinite(values)
    total, count = (np.convolve(x, window, "same") for x in (np.where(finite, values, 0), finite))
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw(title: str, lines: list[Line], logarithmic: bool) -> str:
    """The SVG element of curves over steps, with a vertical line where a later stage of all of them starts.

    Fonts and colours are those of the page, so that it is readable in light and in dark mode.
    """
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own, which it hands on to its commands, need not exist here
    import matplotlib  # not at the top: it creates folders in the user's home
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 10, "axes.labelsize": 10}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        axes = figure.add_subplot(xlabel="step")
        for line in lines:
            _draw_line(axes, line, logarithmic)
        if logarithmic:
            _scale_logarithmically(axes)
        for stage, start in lines[0].starts.items():
            within = any(line.steps.min() < start < line.steps.max() for line in lines)
            if within and all(line.starts.get(stage) == start for line in lines):
                _mark_start(axes, stage, start)
        _style(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    return _for_page(buffer.getvalue(), title)


def _draw_line(axes, line: Line, logarithmic: bool) -> None:
    """Draw the values faintly and their running mean strongly, each stage separately; `dots` as they are."""
    style = {"color": PLACEHOLDERS[line.colour], "linestyle": "--" if line.dashed else "-"}
    values = np.where(line.values > 0, line.values, np.nan) if logarithmic else line.values
    if line.dots:
        axes.plot(line.steps, values, linewidth=1.5, marker="o", markersize=3, **style)
        return
    starts = sorted(line.starts.values())
    for stage in np.split(np.arange(len(values)), np.searchsorted(line.steps, starts, side="right")):
        if len(stage):
            drawn = np.unique(np.linspace(0, len(stage) - 1, MAX_POINTS).astype(int))
            axes.plot(line.steps[stage][drawn], values[stage][drawn], linewidth=0.8, alpha=0.25, **style)
            axes.plot(line.steps[stage][drawn], smooth(values[stage])[drawn], linewidth=1.5, **style)


def _scale_logarithmically(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = np.log10(axes.get_ylim())
    powers = math.floor(high) - math.ceil(low) + 1
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if powers > 2 else (1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_start(axes, stage: str, step: int) -> None:
    axes.axvline(step, color=INK, alpha=0.4, linewidth=0.8)
    axes.annotate(
        stage, (step, 1), (3, -3), ("data", "axes fraction"), "offset points", color=INK, va="top", parse_math=False
    )


def _style(axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.tick_params(length=0, which="both", labelcolor=INK)
    axes.xaxis.label.set_color(INK)
    axes.spines[:].set_visible(False)


def _for_page(svg: str, title: str) -> str:
    """matplotlib's SVG file as an element of the page, with the page's fonts and colours."""
    svg = re.sub(r"(?s)<style.*?</style>| id=\"[\w.]+_\d+\"|font-family: [^;\"]*", "", svg)
    svg = re.sub(r"#00ff(\w\w)", lambda m: f"var(--series-{int(m[1], 16)})", svg)
    box = re.search(r"viewBox=\"[^\"]*\"", svg)[0]
    return re.sub(r"(?s).*?<svg.*?>", f'<svg {box} role="img" aria-label="{html.escape(title)}">', svg, count=1)
