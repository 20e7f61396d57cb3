"""The page that compares runs."""

import pytest

from errors import UserError
from evaluation.charts import CHARTS, compared_curves
from evaluation.comparison import write_comparison
from evaluation.report import table

SCORES = table([{"run": "a", "newest": 20.5}, {"run": "b", "newest": None}], {}, {"newest": 2})
SETTINGS = {"columns": [("setting", "text"), ("a", "text"), ("b", "text")], "rows": [["train.lr", "0.1", "0.2"]]}


@pytest.fixture
def page(tmp_path, make_log, markup, read_page):
    """(the HTML of a comparison of two runs, of which one has a name of markup and an alarm; a Page)."""
    meshes = [{"stage": "train", "step": step, "health/mesh": 4.0} for step in (1, 2, 3)]
    path = tmp_path / "new" / "compare.html"
    write_comparison(path, SCORES, SETTINGS, {"a": make_log(), markup: meshes}, ["a caveat"])
    return read_page(path)


def test_the_page_has_figures_settings_and_curves(page, markup):
    _, found = page
    shown = markup.replace("\udcff", "?")
    assert found.text("h1") == [f"a, {shown}"]
    assert found.text("h2") == ["Figures", "Settings that differ", "Learning curves"]
    assert found.text("td") == ["a", "20.50", "b", "–", "train.lr", "0.1", "0.2"]
    assert "a caveat" in found.text("p")
    assert any(text.startswith(f"{shown}: step 3 of train: the images have a mesh") for text in found.text("p"))


def test_each_term_and_critic_has_a_chart_with_all_runs(page, markup):
    _, found = page
    titles = found.text("h3")
    assert titles[0] == "Validation PSNR" and len(titles) == len(set(titles)) == len(found.all("svg"))
    assert {"Content losses: mse", "Content losses: content", "Adversarial losses: color"} <= set(titles)
    assert titles[-1] == "Gradient penalties: color" and "Mesh and colour cast: mesh" in titles
    assert {chart.title for chart in CHARTS} - {"Structure"} == {title.split(":")[0] for title in titles}


def test_the_page_is_self_contained_and_names_are_text(page):
    html, found = page
    linked = [a[key] for _, a in found.tags for key in ("src", "href", "xlink:href", "action") if key in a]
    assert all(target.startswith("#") for target in linked)
    assert "<script" not in html and not found.all("link")
    assert "#00ff" not in html


def test_runs_have_one_colour_in_all_charts_and_stand_beside_each_other(make_log):
    charts = compared_curves({"a": make_log(), "b": make_log()[:95]})
    legends = {chart["title"]: chart["legend"] for chart in charts}
    assert legends["Validation PSNR"] == legends["Content losses: mse"] == {"a": 1, "b": 2}
    assert legends["Content losses: content"] == {"a": 1, "b": 2} and legends["Critics’ logit gaps: color"]["a"] == 1
    assert all("--series-1" in chart["svg"] for chart in charts)


def test_only_stages_that_start_alike_are_marked():
    def log(steps: int) -> list[dict]:
        return [{"stage": s, "step": i, "loss/tv": 1.0} for s in ("pretrain", "train") for i in range(1, steps + 1)]

    alike, apart = ([log(9), log(9)], [log(9), log(5)])
    marked = [compared_curves(dict(zip("ab", logs, strict=True)))[0]["svg"] for logs in (alike, apart)]
    assert [">train</text>" in svg for svg in marked] == [True, False]


def test_names_in_a_log_are_text_in_charts():
    log = [{"stage": "train", "step": i, 'loss/"><script>': 1.0} for i in (1, 2)]
    svg = compared_curves({"a": log})[0]["svg"]
    assert 'aria-label="Content losses: &quot;&gt;&lt;script&gt;"' in svg


def test_equal_settings_are_told_and_logs_without_steps_give_no_charts(tmp_path, read_page):
    path = tmp_path / "compare.html"
    write_comparison(path, SCORES, {"columns": [], "rows": []}, {"a": [{"stage": "start"}], "b": []}, [])
    _, found = read_page(path)
    assert found.text("h2") == ["Figures", "Settings that differ"] and "All settings are equal." in found.text("p")


def test_only_a_page_of_this_kind_is_replaced(tmp_path, page):
    content = {"scores": SCORES, "settings": SETTINGS, "logs": {"a": []}, "warnings": []}
    write_comparison(tmp_path / "new" / "compare.html", **content)
    (tmp_path / "report.html").write_text("<!doctype html>")
    for path in (tmp_path, tmp_path / "report.html"):
        with pytest.raises(UserError, match="is no page of runs.py: name another file with --page"):
            write_comparison(path, **content)
    assert (tmp_path / "report.html").read_text() == "<!doctype html>"
