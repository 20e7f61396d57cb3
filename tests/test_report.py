"""The report: what it holds, that it holds all of it, and, in a browser, that it can be used and read."""

import base64
import dataclasses
import io
import math
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import report
from report import Report, Scene, write_report

HOSTILE = """<script>alert("1")</script> & 'Grüße' {{ 7 * 7 }} \udcff"""
SECTIONS = ["What ran", "Comparison", "Test images", "Learning curves", "Ranking", "Config"]


def picture(shade: int, height: int = 64, width: int = 64) -> np.ndarray:
    """A ramp from `shade` with some grain."""
    ramp = (
        shade + np.linspace(0, 40, width)[None, :, None] + np.random.default_rng(shade).normal(0, 6, (height, width, 3))
    )
    return ramp.clip(0, 255).astype(np.uint8)


def scene(name: str = "a.png", truth: bool = True, **size: int) -> Scene:
    target = picture(180, **size) if truth else None
    return Scene(name, picture(30, **size), picture(110, **size), target, {"psnr": 23.125} if truth else {})


def training_log(steps: int = 90) -> list[dict]:
    """Of a pretraining and a training with one critic."""
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


EMPTY = Report("empty", {}, {}, [], [], "", [], {}, {}, [], [])
FULL = Report(
    title=HOSTILE,
    facts={"model": "efficient (3,060 parameters)", "checkpoint": "runs/" + "long" * 30},
    config={"seed": 0, "data": {"root": HOSTILE, "black_level": [58.0, 60.0], "raw": ""}, "train": {"lr": 1e-3}},
    log=training_log(),
    ranking=[
        {"rank": i, "checkpoint": f"step_{i:07d}", "step": 100 * i, "psnr": 24 - i / 4, "ssim": math.nan}
        for i in range(1, 13)
    ],
    ranked_by="psnr on 64 validation pairs, protocol paper",
    means=[
        {"model": "demosaiced reference", "images": 64, "psnr": 13.806, "lpips": None, "ms_ssim": 0.51234567},
        {"model": HOSTILE, "images": 64, "psnr": math.inf, "lpips": -0.5, "ms_ssim": 0.7},
    ],
    labels={"psnr": "PSNR (dB)", "lpips": "LPIPS <alex>"},
    digits={"psnr": 2, "lpips": 3},
    scenes=[scene(), scene(HOSTILE), scene("blind", truth=False)],
    captions=["worst 1 of 64", "best 1 of 64", "no ground truth"],
    warning="random weights",
)


class Page(HTMLParser):
    """A page's start tags with their attributes, and its texts by tag."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.open = [], [], [""]
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # what is opened is closed

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def write(folder: Path, content: Report) -> tuple[str, Page]:
    path = folder / "deep" / "report.html"
    write_report(path, content)
    return read(path)


def read(path: Path) -> tuple[str, Page]:
    html = path.read_text("utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The report of `FULL`."""
    path = tmp_path_factory.mktemp("full") / "report.html"
    write_report(path, FULL)
    return path


def pictures(page: Page) -> dict[str, np.ndarray]:
    """The pictures of a page's first scene, decoded."""
    found = {}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        found.setdefault(image["data-picture"], np.asarray(Image.open(io.BytesIO(data))))
    return found


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(file):
    html, page = read(file)
    linked = [a[key] for _, a in page.tags for key in ("src", "href", "xlink:href", "srcset", "action") if key in a]
    assert len(page.all("img")) == 4 + 4 + 2 and page.all("svg")
    assert all(target.startswith(("data:", "#")) for target in linked)
    assert all(target.startswith(("data:", "#")) for target in re.findall(r"url\([\"']?([^)]*)", html))
    assert not page.all("link") and not page.all("iframe") and "@import" not in html
    assert [p.name for p in file.parent.iterdir()] == ["report.html"]


def test_what_drawings_refer_to_is_their_own(file):
    html, page = read(file)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert names and len(names) == len(set(names))
    assert set(re.findall(r"(?:url\(|xlink:href=\")#(\w+)", html)) == set(names)
    assert "#00ff" not in html and "font-family: 'DejaVu" not in html


def test_everything_is_there_in_order(file):
    _, page = read(file)
    assert page.text("h2") == SECTIONS
    assert page.text("p")[1] == "random weights" and page.text("strong") == ["Warning:"]
    assert page.text("h3")[3:] == [
        "Validation PSNR",
        "Content losses",
        "Gradient norms",
        "Adversarial losses",
        "Critics’ logit gaps",
        "Gradient penalties",
        "Score of each checkpoint",
    ]


def test_what_is_empty_is_left_out(tmp_path):
    html, page = write(tmp_path, EMPTY)
    assert page.text("h1") == ["empty"] and not page.text("h2")
    assert not page.all("img") and not page.all("svg") and not page.all("table") and 'class="warning"' not in html


@pytest.mark.parametrize(
    ("part", "heading"),
    [("facts", 0), ("means", 1), ("scenes", 2), ("log", 3), ("ranking", 4), ("config", 5)],
)
def test_each_part_stands_alone(part, heading, tmp_path):
    alone = {part: getattr(FULL, part), "captions": FULL.captions if part == "scenes" else []}
    _, page = write(tmp_path, dataclasses.replace(EMPTY, **alone))
    assert page.text("h2") == [SECTIONS[heading]]


def test_names_are_text_and_never_markup(file):
    html, page = read(file)
    shown = HOSTILE.replace("\udcff", "?")
    assert len(page.all("script")) == 1 and "<script>alert" not in html
    assert page.text("h1") == page.text("title") == [shown]
    assert f"{shown}, error ×4" in [image["alt"] for image in page.all("img")]
    assert shown in page.text("h3") and page.text("td").count(shown) == 2


def test_numbers_in_the_tables(file):
    html, page = read(file)
    assert page.text("th")[:5] == ["model", "images", "PSNR (dB)", "LPIPS <alex>", "ms_ssim"]
    cells = page.text("td")
    assert cells[:5] == ["demosaiced reference", "64", "13.81", "–", "0.5123"]
    assert cells[6:10] == ["64", "∞", "−0.500", "0.7000"]
    assert cells[10:15] == ["1", "step_0000001", "100", "23.75", "–"]
    assert "step_0000010" in cells and "step_0000011" not in cells and "the first 10 of 12" in html
    assert not re.search(r"\bnan\b", html, re.IGNORECASE)


def test_a_config_in_two_levels(tmp_path):
    _, page = write(tmp_path, dataclasses.replace(EMPTY, config=FULL.config | {"as_released": False}))
    assert page.text("caption") == ["run", "data", "train"]
    assert page.text("th") == ["seed", "as_released", "root", "black_level", "raw", "lr"]
    assert [cell for cell in page.text("td") if "alert" not in cell] == ["0", "false", "58.0, 60.0", "–", "0.001"]


def test_a_failed_report_leaves_the_old_one(tmp_path):
    before, _ = write(tmp_path, EMPTY)
    with pytest.raises(ValueError, match="zip"):
        write(tmp_path, dataclasses.replace(EMPTY, captions=["of no scene"]))
    assert (tmp_path / "deep" / "report.html").read_text("utf-8") == before


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_error_picture_by_hand():
    output = np.array([[[10, 200, 0]], [[7, 40, 255]]], dtype=np.uint8)
    target = np.array([[[13, 100, 255]], [[7, 39, 192]]], dtype=np.uint8)
    made = report.error_picture(output, target)
    assert made.tolist() == [[[12, 255, 255]], [[0, 4, 252]]] and made.dtype == np.uint8


def test_pictures_come_through_with_their_colours(tmp_path):
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[:, ::2] = (200, 30, 90)  # stripes of a pixel: halved colour resolution would smear them
    shown = Scene("stripes", red, red[:, ::-1], red, {})
    found = pictures(write(tmp_path, dataclasses.replace(EMPTY, scenes=[shown], captions=["one"]))[1])
    assert sorted(found) == ["demosaiced", "error", "output", "target"]
    for name, original in (("demosaiced", red), ("output", red[:, ::-1]), ("target", red)):
        assert np.abs(found[name].astype(int) - original).max() < 30, name
    assert found["error"].mean((0, 1)) == pytest.approx([255, 120, 255], abs=8)


def test_without_truth_there_is_no_error(tmp_path):
    blind = dataclasses.replace(EMPTY, scenes=[scene(truth=False)], captions=["one"])
    html, page = write(tmp_path, blind)
    assert {image["data-picture"]: image["class"] for image in page.all("img")} == {
        "demosaiced": "left",
        "output": "right",
    }
    assert not page.all("button") and "the buttons" not in html and "ground truth" not in html


def test_wide_pictures_are_scaled_and_say_so(tmp_path):
    wide = dataclasses.replace(EMPTY, scenes=[scene(height=100, width=2048)], captions=["one"])
    html, page = write(tmp_path, wide)
    assert pictures(page)["output"].shape == (50, 1024, 3)
    assert {(image["width"], image["height"]) for image in page.all("img")} == {("1024", "50")}
    assert "2048 × 100, shown as 1024 × 50" in html


def test_eight_scenes_are_a_small_file(tmp_path):
    scenes = [scene(str(i), height=256, width=256) for i in range(8)]
    html, _ = write(tmp_path, dataclasses.replace(EMPTY, scenes=scenes, captions=["one"] * 8))
    assert len(html) < 2_500_000


# --- curves ----------------------------------------------------------------------------------------------------------


def test_steps_count_over_the_stages():
    log = [{"stage": "start", "weights": {}}]
    log += [{"stage": "pretrain", "step": 10, "loss/tv": 1.0}, {"stage": "pretrain", "step": 15, "val_psnr": 12.0}]
    log += [{"stage": "train", "step": 10, "loss/tv": math.inf}, {"stage": "train", "step": 20, "val_psnr": 14.0}]
    series, starts = report._series(log)
    assert starts == {"pretrain": 0, "train": 15}
    np.testing.assert_array_equal(series["val_psnr"], [[15, 35], [12, 14]])
    np.testing.assert_array_equal(series["loss/tv"], [[10, 25], [1, math.nan]])


def test_the_running_mean_by_hand():
    values = np.arange(60.0)  # windows of three
    values[10] = math.nan
    smooth = report.smooth(values)
    assert smooth[[0, 1, 5, 9, 10, 11, 59]] == pytest.approx([0.5, 1, 5, 8.5, 10, 11.5, 58.5])
    assert report.smooth(np.array([3.0, math.nan])) == pytest.approx([3, math.nan], nan_ok=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("log", "titles"),
    [
        ([{"stage": "start"}], []),
        ([{"stage": "train", "step": 0, "val_psnr": 12.0}], ["Validation PSNR"]),
        ([{"stage": "train", "step": 1, "loss/tv": math.nan, "norm/tv": 0.0}], []),
        ([{"stage": "train", "step": i, "loss/tv": 0.0, "norm/tv": i - 1.0} for i in (1, 2)], ["Gradient norms"]),
        ([{"stage": "train", "step": i, "critic/grey/gap": -1.0} for i in (1, 2)], ["Critics’ logit gaps"]),
    ],
)
def test_short_and_broken_logs(log, titles, tmp_path):
    _, page = write(tmp_path, dataclasses.replace(EMPTY, log=log))
    assert page.text("h3") == titles and len(page.all("svg")) == len(titles)


def test_a_long_log_stays_small_and_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    settings = ("svg.fonttype", "svg.hashsalt", "font.size", "axes.labelsize")
    before = [matplotlib.rcParams[name] for name in settings]
    html, _ = write(tmp_path, dataclasses.replace(EMPTY, log=training_log(5000)))
    assert len(html) < 600_000
    assert [matplotlib.rcParams[name] for name in settings] == before


def test_a_ranking_without_steps_has_no_curve(tmp_path):
    rows = [
        {"rank": 1, "checkpoint": "released", "psnr": 20.0},
        {"rank": 2, "checkpoint": "a", "step": 3, "psnr": 19.0},
    ]
    _, page = write(tmp_path, dataclasses.replace(EMPTY, ranking=rows, ranked_by="psnr on 2 pairs"))
    assert page.all("table") and not page.all("svg")


# --- in a browser ----------------------------------------------------------------------------------------------------

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not binary:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=binary, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture(scope="module", params=(1280, 400), ids="{}px".format)
def window(browser, request):
    """A page of the browser, and what its console, its errors, dialogs and requests say against the report."""
    page = browser.new_context(viewport={"width": request.param, "height": 900}, has_touch=True).new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda sent: sent.url.startswith(("data:", "file:")) or complaints.append(sent.url))
    yield page, complaints
    page.context.close()


@pytest.fixture
def page(window, file):
    """The report, opened from disk."""
    page, complaints = window
    complaints.clear()
    page.goto(file.as_uri())
    yield page
    assert not complaints


def shot(view) -> np.ndarray:
    """(H, W, 3) of a view as it looks now."""
    return np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB")).astype(int)


def changes(before: np.ndarray, after: np.ndarray) -> list[float]:
    """How much each tenth of the width changed, without the labels above and the divider's knob."""
    rows = slice(3 * before.shape[0] // 4, None)
    return [float(np.abs(part).mean()) for part in np.array_split((after - before)[rows], 10, axis=1)]


def clip(view, side: str) -> float:
    """Where the clipping of a side's picture stands, in per cent."""
    found = view.locator(f"img.{side}").evaluate("image => getComputedStyle(image).clipPath")
    inset = [float(number) for number in re.findall(r"([\d.]+)(?:%|px)", found)]
    return 100 - inset[1] if side == "left" else inset[-1]


def test_the_page_looks_whole(page, tmp_path):
    images = page.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0 && !!i.alt)")
    assert len(images) == 10 and all(images)
    page.locator("summary").click()
    assert page.locator(".config").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    width = page.viewport_size["width"]
    folder = Path(os.environ.get("ISP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"report-{width}.png", full_page=True)
    taken = np.asarray(Image.open(folder / f"report-{width}.png").convert("RGB"))
    assert taken.shape[1] == width and taken.std() > 10


def test_text_is_large_enough(page):
    page.locator("summary").click()
    sizes = page.evaluate("""[...document.querySelectorAll("body :not(svg *, script)")]
        .filter(e => [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()))
        .map(e => [e.tagName, parseFloat(getComputedStyle(e).fontSize)])""")
    assert {"P", "TD", "TH", "DD", "DT", "BUTTON", "SPAN"} <= {tag for tag, _ in sizes}
    assert min(size for _, size in sizes) >= 12
    drawn = page.locator("svg text").evaluate_all(
        "all => all.map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"
    )
    assert len(drawn) > 40 and min(drawn) >= 11


def test_wide_tables_scroll_in_their_box(page):
    page.evaluate("""for (const box of document.querySelectorAll(".scroll"))
        box.querySelectorAll("td").forEach(cell => cell.textContent += "0".repeat(80))""")
    boxes = page.locator(".scroll").evaluate_all("all => all.map(box => box.scrollWidth > box.clientWidth)")
    assert boxes == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_divider_follows_the_mouse(page):
    view = page.locator(".view").first
    view.scroll_into_view_if_needed()
    before, box = shot(view), view.bounding_box()
    assert clip(view, "left") == clip(view, "right") == 50
    x, y = box["x"] + 0.9 * box["width"], box["y"] + 0.3 * box["height"]  # nowhere near the divider
    page.mouse.move(x, y)
    assert clip(view, "left") == 50  # a pointer that only passes moves nothing
    page.mouse.down()
    assert clip(view, "left") == pytest.approx(90, abs=0.5)
    page.mouse.move(box["x"] - 5, y - box["height"], steps=4)
    assert clip(view, "left") == 0  # outside, and still held
    page.mouse.move(box["x"] + 0.2 * box["width"], y, steps=4)
    assert clip(view, "left") == pytest.approx(20, abs=0.5)
    page.mouse.up()
    assert clip(view, "left") == pytest.approx(20, abs=0.5) == clip(view, "right")
    assert view.locator("input").input_value() == "20"
    moved = changes(before, shot(view))
    assert min(moved[2:5]) > 30  # what was output is target now
    assert max(moved[:1] + moved[6:]) < 1
    page.mouse.move(x, y)
    assert clip(view, "left") == pytest.approx(20, abs=0.5)  # released


def test_the_divider_follows_the_keyboard(page):
    view = page.locator(".view").first
    before = shot(view)
    view.locator("input").focus()
    for key, place in (("ArrowRight", 51), ("ArrowLeft", 50), ("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert clip(view, "left") == place
    moved = changes(before, shot(view))
    assert min(moved[1:4]) > 30 and max(moved[6:]) < 1


def test_the_divider_follows_a_finger(page):
    view = page.locator(".view").first
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    page.touchscreen.tap(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    assert clip(view, "left") == pytest.approx(70, abs=0.5)
    assert view.evaluate("view => getComputedStyle(view).touchAction") == "pan-y"


def shown(scene) -> tuple[list[str], list[str], list[str]]:
    """(pictures left and right, their labels, the buttons that look pressed) of a scene."""
    sides = [f"img.{side}" for side in ("left", "right")]
    return (
        [scene.locator(side).get_attribute("data-picture") for side in sides],
        [scene.locator(f".label.{side} span").inner_text() for side in ("left", "right")],
        scene.locator("[aria-pressed=true]").all_inner_texts(),
    )


def test_buttons_swap_the_pictures(page):
    scene = page.locator(".scene").first
    view, right = scene.locator(".view"), scene.get_by_role("group", name="Picture on the right")
    assert shown(scene) == (["output", "target"],) * 2 + (["output", "target"],)
    before = shot(view)
    right.get_by_role("button", name="error").click()
    assert shown(scene) == (["output", "error"], ["output", "error ×4"], ["output", "error"])
    moved = changes(before, shot(view))
    assert max(moved[:4]) < 1 and min(moved[6:]) > 10
    scene.get_by_role("group", name="Picture on the left").get_by_role("button", name="error").click()
    assert shown(scene)[0] == ["error", "output"]  # never a picture beside itself
    assert shown(page.locator(".scene").nth(1))[0] == ["output", "target"]  # whose buttons these are not


def test_a_button_swaps_all_pictures_that_it_can(page):
    scenes = page.locator(".scene")
    page.get_by_role("button", name="demosaiced | target").click()
    both = ["demosaiced", "target"]
    assert [shown(scenes.nth(i))[0] for i in range(3)] == [both, both, ["demosaiced", "output"]]
    page.get_by_role("button", name="output | error").click()
    assert [shown(scenes.nth(i))[1] for i in range(2)] == [["output", "error ×4"]] * 2


def test_text_stands_out_from_its_ground(page):
    pairs = [("h1", "body"), ("td", "body"), (".facts dt", "body"), (".warning", ".warning")]
    pairs += [(f".images {text}", ".images") for text in ("p", "small", "dt", "dd", "button[aria-pressed=false]")]
    style = "e => getComputedStyle(e)"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for text, ground in pairs:
            ink = page.locator(text).first.evaluate(f"{style}.color")
            paper = page.locator(ground).evaluate(f"{style}.backgroundColor")
            assert contrast(ink, paper) >= 4.5, (scheme, text, ink, paper)
        grey = page.locator(".images").evaluate(f"{style}.backgroundColor")
        assert len(set(re.findall(r"\d+", grey))) == 1  # neutral


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two CSS colours rgb(...)."""

    def luminance(colour: str) -> float:
        channels = np.array(re.findall(r"\d+", colour)[:3], dtype=float) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
