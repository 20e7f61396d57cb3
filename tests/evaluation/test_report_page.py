"""The report in Chromium: it can be used by mouse, keyboard and touch, and it is readable."""

import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
        chromium = playwright.chromium.launch(executable_path=binary, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=(1280, 400), ids="{}px".format)
def window(browser, request):
    """A page of the browser, and a list of console messages, errors, dialogs and requests, which must stay empty."""
    page = browser.new_context(viewport={"width": request.param, "height": 900}, has_touch=True).new_page()
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda sent: sent.url.startswith(("data:", "file:")) or problems.append(sent.url))
    yield page, problems
    page.context.close()


@pytest.fixture
def page(window, full_page):
    """The report, opened from disk."""
    page, problems = window
    problems.clear()
    page.goto(full_page.as_uri())
    yield page
    assert not problems


def screenshot(view) -> np.ndarray:
    """The view's current pixels, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB")).astype(int)


def changes(before: np.ndarray, after: np.ndarray) -> list[float]:
    """The mean change of each tenth of the width, below the labels and the divider's knob."""
    rows = slice(3 * before.shape[0] // 4, None)
    return [float(np.abs(part).mean()) for part in np.array_split((after - before)[rows], 10, axis=1)]


def divider(view, side: str) -> float:
    """The divider's position by the clipping of a side's picture, in per cent of the width."""
    found = view.locator(f"img.{side}").evaluate("image => getComputedStyle(image).clipPath")
    inset = [float(number) for number in re.findall(r"([\d.]+)(?:%|px)", found)]
    return 100 - inset[1] if side == "left" else inset[-1]


def test_all_images_load_and_nothing_is_wider_than_the_window(page, tmp_path):
    images = page.locator("img").evaluate_all("all => all.map(i => i.complete && i.naturalWidth > 0 && !!i.alt)")
    assert len(images) == 10 and all(images)
    page.locator("summary").click()
    assert page.locator(".config").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    width = page.viewport_size["width"]
    folder = Path(os.environ.get("ISP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"report-{width}.png", full_page=True)
    screen = np.asarray(Image.open(folder / f"report-{width}.png").convert("RGB"))
    assert screen.shape[1] == width and screen.std() > 10


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


def test_wide_tables_scroll_within_their_box(page):
    page.evaluate("""for (const box of document.querySelectorAll(".scroll"))
        box.querySelectorAll("td").forEach(cell => cell.textContent += "0".repeat(80))""")
    boxes = page.locator(".scroll").evaluate_all("all => all.map(box => box.scrollWidth > box.clientWidth)")
    assert boxes == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_divider_follows_the_mouse(page):
    view = page.locator(".view").first
    view.scroll_into_view_if_needed()
    before, box = screenshot(view), view.bounding_box()
    assert divider(view, "left") == divider(view, "right") == 50
    x, y = box["x"] + 0.9 * box["width"], box["y"] + 0.3 * box["height"]  # far from the divider
    page.mouse.move(x, y)
    assert divider(view, "left") == 50  # moving without a pressed button has no effect
    page.mouse.down()
    assert divider(view, "left") == pytest.approx(90, abs=0.5)
    page.mouse.move(box["x"] - 5, y - box["height"], steps=4)
    assert divider(view, "left") == 0  # outside the view, with the button still pressed
    page.mouse.move(box["x"] + 0.2 * box["width"], y, steps=4)
    assert divider(view, "left") == pytest.approx(20, abs=0.5)
    page.mouse.up()
    assert divider(view, "left") == pytest.approx(20, abs=0.5) == divider(view, "right")
    assert view.locator("input").input_value() == "20"
    change = changes(before, screenshot(view))
    assert min(change[2:5]) > 30  # here the target replaces the output
    assert max(change[:1] + change[6:]) < 1
    page.mouse.move(x, y)
    assert divider(view, "left") == pytest.approx(20, abs=0.5)  # released


def test_the_divider_follows_the_keyboard(page):
    view = page.locator(".view").first
    before = screenshot(view)
    view.locator("input").focus()
    for key, position in (("ArrowRight", 51), ("ArrowLeft", 50), ("End", 100), ("Home", 0)):
        page.keyboard.press(key)
        assert divider(view, "left") == position
    change = changes(before, screenshot(view))
    assert min(change[1:4]) > 30 and max(change[6:]) < 1


def test_the_divider_follows_a_touch(page):
    view = page.locator(".view").first
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    page.touchscreen.tap(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    assert divider(view, "left") == pytest.approx(70, abs=0.5)
    assert view.evaluate("view => getComputedStyle(view).touchAction") == "pan-y"


def shown(scene) -> tuple[list[str], list[str], list[str]]:
    """(the pictures left and right, their labels, the buttons shown as pressed) of a scene."""
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
    before = screenshot(view)
    right.get_by_role("button", name="error").click()
    assert shown(scene) == (["output", "error"], ["output", "error ×4"], ["output", "error"])
    change = changes(before, screenshot(view))
    assert max(change[:4]) < 1 and min(change[6:]) > 10
    scene.get_by_role("group", name="Picture on the left").get_by_role("button", name="error").click()
    assert shown(scene)[0] == ["error", "output"]  # the right side gives way: never a picture beside itself
    assert shown(page.locator(".scene").nth(1))[0] == ["output", "target"]  # the other scenes stay as they are


def test_the_buttons_for_all_images_skip_scenes_without_the_picture(page):
    scenes = page.locator(".scene")
    page.get_by_role("button", name="demosaiced | target").click()
    both = ["demosaiced", "target"]
    assert [shown(scenes.nth(i))[0] for i in range(3)] == [both, both, ["demosaiced", "output"]]
    page.get_by_role("button", name="output | error").click()
    assert [shown(scenes.nth(i))[1] for i in range(2)] == [["output", "error ×4"]] * 2


def test_text_has_enough_contrast_in_light_and_dark_mode(page):
    pairs = [("h1", "body"), ("td", "body"), (".facts dt", "body"), (".warning", ".warning")]
    pairs += [(f".images {text}", ".images") for text in ("p", "small", "dt", "dd", "button[aria-pressed=false]")]
    style = "e => getComputedStyle(e)"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for text, background in pairs:
            ink = page.locator(text).first.evaluate(f"{style}.color")
            behind = page.locator(background).evaluate(f"{style}.backgroundColor")
            assert contrast(ink, behind) >= 4.5, (scheme, text, ink, behind)
        grey = page.locator(".images").evaluate(f"{style}.backgroundColor")
        assert len(set(re.findall(r"\d+", grey))) == 1  # neutral


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two CSS colours rgb(...), as WCAG defines it."""

    def luminance(colour: str) -> float:
        channels = np.array(re.findall(r"\d+", colour)[:3], dtype=float) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
