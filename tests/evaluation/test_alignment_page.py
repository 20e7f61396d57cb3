"""The page of aligned pairs: what it shows, and in Chromium, its flicker."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.alignment_page import MOST, PICTURES, write_alignment_page

FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"


def record(folder: Path, name: str, ncc: float, refused: str = "") -> dict[str, Any]:
    for index, picture in enumerate(PICTURES):
        Image.fromarray(np.full((32, 48, 3), 80 * index, np.uint8)).save(folder / f"{name}.{picture}.jpg")
    return {"name": name, "figures": {"ncc": ncc, "inliers": 1234.0}, "refused": refused, "patches": []}


def test_the_worst_pairs_come_first_and_refused_ones_are_named(tmp_path):
    records = [record(tmp_path, f"pair{index:02}", index / 100) for index in range(MOST + 3)][::-1]
    records.append(record(tmp_path, "bad", 0, refused="they do not show the same <scene>"))
    text = write_alignment_page(tmp_path, tmp_path, records).read_text()
    shown = [index for index in range(MOST + 3) if f"<h3>pair{index:02} " in text]
    assert shown == list(range(MOST)) and text.index("<h3>pair00 ") < text.index("<h3>pair01 ")
    assert "same &lt;scene&gt;" in text and "<h3>bad" not in text and "1234" in text
    assert "http://" not in text and "https://" not in text


def test_the_flicker_shows_both_pictures_in_turn(tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    if not (binary := shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine")
    page_file = write_alignment_page(tmp_path, tmp_path, [record(tmp_path, "pair", 0.9)])
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=FLAGS.split())
        page, problems = chromium.new_page(), []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_file.as_uri())
        shown = "view => ['left', 'right'].map(s => getComputedStyle(view.querySelector('img.' + s)).visibility)"
        assert page.eval_on_selector(".view", shown) == ["visible", "visible"]
        page.click("button[data-flicker]")
        seen = set()
        for _ in range(30):
            seen.add(tuple(page.eval_on_selector(".view", shown)))
            page.wait_for_timeout(50)
        assert seen == {("hidden", "visible"), ("visible", "hidden")} and not problems
        page.click("button[data-flicker]")
        assert page.eval_on_selector(".view", shown) == ["visible", "visible"]
        page.click("article button[data-right=before]")
        assert page.eval_on_selector(".view img.right", "image => image.dataset.picture") == "before"
        chromium.close()
