"""The report: what the file holds, and that it is self-contained."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.report import Scene, error_picture

HEADINGS = ["Model and data", "Comparison", "Test images", "Learning curves", "Ranking", "Config"]


def pictures(page) -> dict[str, np.ndarray]:
    """The pictures of a page's first scene, decoded."""
    found = {}
    for image in page.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        found.setdefault(image["data-picture"], np.asarray(Image.open(io.BytesIO(data))))
    return found


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained(full_page, read_page):
    html, page = read_page(full_page)
    linked = [a[key] for _, a in page.tags for key in ("src", "href", "xlink:href", "srcset", "action") if key in a]
    assert len(page.all("img")) == 4 + 4 + 2 and page.all("svg")
    assert all(target.startswith(("data:", "#")) for target in linked)
    assert all(target.startswith(("data:", "#")) for target in re.findall(r"url\([\"']?([^)]*)", html))
    assert not page.all("link") and not page.all("iframe") and "@import" not in html
    assert [p.name for p in full_page.parent.iterdir()] == ["report.html"]


def test_all_parts_are_there_in_order(full_page, read_page):
    _, page = read_page(full_page)
    assert page.text("h2") == HEADINGS
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


def test_empty_parts_are_left_out(write_page, empty_report):
    html, page = write_page(empty_report)
    assert page.text("h1") == ["empty"] and not page.text("h2")
    assert not page.all("img") and not page.all("svg") and not page.all("table") and 'class="warning"' not in html


@pytest.mark.parametrize(
    ("part", "heading"),
    [("facts", 0), ("means", 1), ("scenes", 2), ("log", 3), ("ranking", 4), ("config", 5)],
)
def test_each_part_is_shown_without_the_others(part, heading, write_page, empty_report, full_report):
    alone = {part: getattr(full_report, part), "captions": full_report.captions if part == "scenes" else []}
    _, page = write_page(replace(empty_report, **alone))
    assert page.text("h2") == [HEADINGS[heading]]


def test_names_are_text_and_never_markup(full_page, read_page, markup):
    html, page = read_page(full_page)
    shown = markup.replace("\udcff", "?")
    assert len(page.all("script")) == 1 and "<script>alert" not in html
    assert page.text("h1") == page.text("title") == [shown]
    assert f"{shown}, error ×4" in [image["alt"] for image in page.all("img")]
    assert shown in page.text("h3") and page.text("td").count(shown) == 2


def test_numbers_in_the_tables(full_page, read_page):
    html, page = read_page(full_page)
    assert page.text("th")[:5] == ["model", "images", "PSNR (dB)", "LPIPS <alex>", "ms_ssim"]
    cells = page.text("td")
    assert cells[:5] == ["demosaiced reference", "64", "13.81", "–", "0.5123"]
    assert cells[6:10] == ["64", "∞", "−0.500", "0.7000"]
    assert cells[10:15] == ["1", "step_0000001", "100", "23.75", "–"]
    assert "step_0000010" in cells and "step_0000011" not in cells and "the first 10 of 12" in html
    assert not re.search(r"\bnan\b", html, re.IGNORECASE)


def test_a_config_is_shown_in_sections(write_page, empty_report, full_report):
    _, page = write_page(replace(empty_report, config=full_report.config | {"as_released": False}))
    assert page.text("caption") == ["run", "data", "train"]
    assert page.text("th") == ["seed", "as_released", "root", "black_level", "raw", "lr"]
    assert [cell for cell in page.text("td") if "alert" not in cell] == ["0", "false", "58.0, 60.0", "–", "0.001"]


def test_a_report_that_fails_leaves_the_old_file(write_page, empty_report, tmp_path):
    before, _ = write_page(empty_report)
    with pytest.raises(ValueError, match="zip"):
        write_page(replace(empty_report, captions=["of no scene"]))
    [file] = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert file.name == "report.html" and file.read_text("utf-8") == before


def test_alarms_of_the_log_are_shown(write_page, empty_report):
    log = [{"stage": "train", "step": step, "health/mesh": 4.0, "health/structure": 0.9} for step in (1, 2, 3)]
    _, page = write_page(replace(empty_report, log=log))
    assert "Alarm:" in page.text("strong") and {"Mesh and colour cast", "Structure"} <= set(page.text("h3"))
    _, page = write_page(replace(empty_report, log=log[:1]))
    assert "Alarm:" not in page.text("strong")


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_error_picture_by_hand():
    output = np.array([[[10, 200, 0]], [[7, 40, 255]]], dtype=np.uint8)
    target = np.array([[[13, 100, 255]], [[7, 39, 192]]], dtype=np.uint8)
    error = error_picture(output, target)
    assert error.tolist() == [[[12, 255, 255]], [[0, 4, 252]]] and error.dtype == np.uint8


def test_pictures_keep_their_colours(write_page, empty_report):
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[:, ::2] = (200, 30, 90)  # stripes one pixel wide: halved colour resolution would blur them
    stripes = Scene("stripes", red, red[:, ::-1], red, {})
    found = pictures(write_page(replace(empty_report, scenes=[stripes], captions=["one"]))[1])
    assert sorted(found) == ["demosaiced", "error", "output", "target"]
    for name, original in (("demosaiced", red), ("output", red[:, ::-1]), ("target", red)):
        assert np.abs(found[name].astype(int) - original).max() < 30, name
    assert found["error"].mean((0, 1)) == pytest.approx([255, 120, 255], abs=8)


@pytest.mark.parametrize("target", (True, False))
def test_images_of_compared_models_stand_beside_the_output(write_page, empty_report, make_scene, target):
    one = make_scene(target=target)
    both = replace(one, compared={"quick": 255 - one.output, "target": one.output})
    _, page = write_page(replace(empty_report, scenes=[both], captions=["one"]))
    found = pictures(page)
    assert np.abs(found["quick"].astype(int) - (255 - one.output)).mean() < 6
    assert np.abs(found["model target"].astype(int) - one.output).mean() < 6
    sides = [(side, b[f"data-{side}"]) for b in page.all("button") for side in ("left", "right") if f"data-{side}" in b]
    assert {("left", "quick"), ("right", "quick"), ("right", "model target")} <= set(sides)


def test_without_ground_truth_there_is_no_error_picture(write_page, empty_report, make_scene):
    html, page = write_page(replace(empty_report, scenes=[make_scene(target=False)], captions=["one"]))
    assert {image["data-picture"]: image["class"] for image in page.all("img")} == {
        "demosaiced": "left",
        "output": "right",
    }
    assert not page.all("button") and "the buttons" not in html and "ground truth" not in html


def test_wide_pictures_are_scaled_down_and_the_page_says_so(write_page, empty_report, make_scene):
    wide = make_scene(height=100, width=2048)
    html, page = write_page(replace(empty_report, scenes=[wide], captions=["one"]))
    assert pictures(page)["output"].shape == (50, 1024, 3)
    assert {(image["width"], image["height"]) for image in page.all("img")} == {("1024", "50")}
    assert "2048 × 100, shown as 1024 × 50" in html


def test_a_report_with_eight_scenes_is_a_small_file(write_page, empty_report, make_scene):
    scenes = [make_scene(str(i), height=256, width=256) for i in range(8)]
    html, _ = write_page(replace(empty_report, scenes=scenes, captions=["one"] * 8))
    assert len(html) < 2_500_000
