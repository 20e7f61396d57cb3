"""Images to score, and reports to write and read."""

import json
import math
import runpy
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.report import Report, Scene, write_report

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MARKUP = """<script>alert("1")</script> & 'Grüße' {{ 7 * 7 }} \udcff"""  # a name that a careless page would execute


# --- images to score -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def random_image():
    """random_image(*shape, seed=0): uint8."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))

    return make


@pytest.fixture(scope="session")
def golden_pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Image and target of golden/images.py, each (1, 3, H, W); the checksum says that TensorFlow scored the same."""
    scores = json.loads((GOLDEN / "tensorflow.json").read_text())["pairs"]
    found = runpy.run_path(str(GOLDEN / "images.py"))["pairs"]()
    assert {name: zlib.crc32(b"".join(x.tobytes() for x in pair)) for name, pair in found.items()} == {
        name: numbers["crc32"] for name, numbers in scores.items()
    }
    return {name: tuple(torch.from_numpy(x.copy()).movedim(-1, 0)[None] for x in pair) for name, pair in found.items()}


# --- reports ---------------------------------------------------------------------------------------------------------


def ramp(shade: int, height: int, width: int) -> np.ndarray:
    """A horizontal ramp from `shade` with some grain, (H, W, 3) uint8."""
    noise = np.random.default_rng(shade).normal(0, 6, (height, width, 3))
    return (shade + np.linspace(0, 40, width)[None, :, None] + noise).clip(0, 255).astype(np.uint8)


def scene(name: str = "a.png", target: bool = True, height: int = 64, width: int = 64) -> Scene:
    demosaiced, output, truth = (ramp(shade, height, width) for shade in (30, 110, 180))
    return Scene(name, demosaiced, output, truth if target else None, {"psnr": 23.125} if target else {})


def training_log(steps: int = 90) -> list[dict]:
    """The log of a pretraining and a training with one critic."""
    lines = [{"stage": "start", "weights": {"vgg": "random"}}]
    for step in range(1, steps + 1):
        noise = 1 + 0.3 * math.sin(step * 7)
        lines += [{"stage": "pretrain", "step": step, "loss/mse": noise / step, "norm/mse": noise}]
    lines += [{"stage": "pretrain", "step": steps, "val_psnr": 14.5}]
    for step in range(1, steps + 1):
        noise = 1 + 0.3 * math.sin(step * 5)
        critic = {f"critic/color/{name}": noise * size for name, size in (("loss", 0.6), ("gap", 0.2), ("r1", 1e-3))}
        terms = {"loss/content": 100 * noise, "loss/color": noise, "norm/content": 1000 * noise, "norm/color": noise}
        lines += [{"stage": "train", "step": step, **terms, **critic, "critic/color/r2": 2e-3 * noise}]
    return [*lines, {"stage": "train", "step": steps, "val_psnr": 21.25}]


class Page(HTMLParser):
    """The start tags of a page with their attributes, and its texts by tag; checks that tags are closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.open = [], [], [""]
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="session")
def make_scene():
    """make_scene(name, target, height, width): a test image, with or without ground truth."""
    return scene


@pytest.fixture(scope="session")
def make_log():
    """make_log(steps): the log of a training in two stages."""
    return training_log


@pytest.fixture(scope="session")
def markup() -> str:
    return MARKUP


@pytest.fixture(scope="session")
def empty_report() -> Report:
    return Report(
        title="empty",
        facts={},
        config={},
        log=[],
        ranking=[],
        ranked_by="",
        means=[],
        labels={},
        digits={},
        scenes=[],
        captions=[],
    )


@pytest.fixture(scope="session")
def full_report() -> Report:
    """A report that has every part."""
    return Report(
        title=MARKUP,
        facts={"model": "efficient (3,060 parameters)", "checkpoint": "runs/" + "long" * 30},
        config={"seed": 0, "data": {"root": MARKUP, "black_level": [58.0, 60.0], "raw": ""}, "train": {"lr": 1e-3}},
        log=training_log(),
        ranking=[
            {"rank": i, "checkpoint": f"step_{i:07d}", "step": 100 * i, "psnr": 24 - i / 4, "ssim": math.nan}
            for i in range(1, 13)
        ],
        ranked_by="psnr on 64 validation pairs, protocol paper",
        means=[
            {"model": "demosaiced reference", "images": 64, "psnr": 13.806, "lpips": None, "ms_ssim": 0.51234567},
            {"model": MARKUP, "images": 64, "psnr": math.inf, "lpips": -0.5, "ms_ssim": 0.7},
        ],
        labels={"psnr": "PSNR (dB)", "lpips": "LPIPS <alex>"},
        digits={"psnr": 2, "lpips": 3},
        scenes=[scene(), scene(MARKUP), scene("no target", target=False)],
        captions=["worst 1 of 64", "best 1 of 64", "no ground truth"],
        warning="random weights",
    )


@pytest.fixture(scope="session")
def full_page(tmp_path_factory, full_report) -> Path:
    """The file of `full_report`, alone in its folder."""
    path = tmp_path_factory.mktemp("full") / "report.html"
    write_report(path, full_report)
    return path


@pytest.fixture(scope="session")
def read_page():
    """read_page(path): (its HTML, a Page)."""

    def read(path: Path) -> tuple[str, Page]:
        html = path.read_text("utf-8")
        return html, Page(html)

    return read


@pytest.fixture
def write_page(tmp_path, read_page):
    """write_page(report): (the HTML of the written page, a Page)."""

    def write(report: Report) -> tuple[str, Page]:
        path = tmp_path / "deep" / "report.html"
        write_report(path, report)
        return read_page(path)

    return write
