"""The report's charts: what is drawn of a log, and how it is embedded in the page."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from evaluation.charts import read_series, smooth


def test_ids_and_references_in_charts_are_unique_to_each(full_page, read_page):
    html, page = read_page(full_page)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert names and len(names) == len(set(names))
    assert set(re.findall(r"(?:url\(|xlink:href=\")#(\w+)", html)) == set(names)


def test_charts_use_the_page_s_colours_and_font(full_page):
    html = full_page.read_text("utf-8")
    assert "#00ff" not in html and "font-family: 'DejaVu" not in html


def test_steps_are_counted_over_all_stages():
    log = [{"stage": "start", "weights": {}}]
    log += [{"stage": "pretrain", "step": 10, "loss/tv": 1.0}, {"stage": "pretrain", "step": 15, "val_psnr": 12.0}]
    log += [{"stage": "train", "step": 10, "loss/tv": math.inf}, {"stage": "train", "step": 20, "val_psnr": 14.0}]
    series, starts = read_series(log)
    assert starts == {"pretrain": 0, "train": 15}
    np.testing.assert_array_equal(series["val_psnr"], [[15, 35], [12, 14]])
    np.testing.assert_array_equal(series["loss/tv"], [[10, 25], [1, math.nan]])


def test_the_running_mean_by_hand():
    values = np.arange(60.0)  # 60 values: a window of three
    values[10] = math.nan
    smoothed = smooth(values)
    assert smoothed[[0, 1, 5, 9, 10, 11, 59]] == pytest.approx([0.5, 1, 5, 8.5, 10, 11.5, 58.5])
    assert smooth(np.array([3.0, math.nan])) == pytest.approx([3, math.nan], nan_ok=True)


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
def test_short_logs_and_values_that_cannot_be_drawn(log, titles, write_page, empty_report):
    _, page = write_page(replace(empty_report, log=log))
    assert page.text("h3") == titles and len(page.all("svg")) == len(titles)


def test_a_long_log_stays_small_and_matplotlib_s_settings_unchanged(write_page, empty_report, make_log):
    import matplotlib

    settings = ("svg.fonttype", "svg.hashsalt", "font.size", "axes.labelsize")
    before = [matplotlib.rcParams[name] for name in settings]
    html, _ = write_page(replace(empty_report, log=make_log(5000)))
    assert len(html) < 600_000
    assert [matplotlib.rcParams[name] for name in settings] == before


def test_a_ranking_without_steps_has_no_chart(write_page, empty_report):
    rows = [
        {"rank": 1, "checkpoint": "released", "psnr": 20.0},
        {"rank": 2, "checkpoint": "a", "step": 3, "psnr": 19.0},
    ]
    _, page = write_page(replace(empty_report, ranking=rows, ranked_by="psnr on 2 pairs"))
    assert page.all("table") and not page.all("svg")
