"""Options of align.py that do not fit together end in a sentence, before anything is written."""

import pytest

import align

from .faults.commands import files_of, refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (("a", "b"), "give three folders: RAWS PHOTOS OUT"),
        (("a", "b", ""), "a folder's name is empty"),
        (("--check", "a"), "give DATASET OUT or RAWS PHOTOS OUT to --check"),
        (("--check", "a", "b", "--patch", 64), "--patch has no effect with --check"),
        (("--check", "a", "b", "--mask-ncc", 0.5), "--mask-ncc has no effect with --check"),
        (("a", "b", "c", "--patch", 0, "--valid", 0.5), "--valid has no effect with --patch 0"),
        (("a", "b", "c", "--local", "off", "--reach", 4), "--reach has no effect with --local off"),
        (("a", "b", "c", "--cfa", "rggb"), "--cfa, --black-level and --white-level belong together"),
        (("a", "b", "c", "--raw-width", 8), "--raw-height and --raw-width belong together"),
        (("a", "b", "c", "--remainder", 1), "--remainder needs --n"),
        (("a", "b", "c", "--n", 2, "--remainder", 2), "--remainder must lie between 0 and --n - 1"),
        (("a", "b", "c", "--patch", 63), "the patch is 63, but must be even"),
        (("a", "b", "c", "--valid", 2), "the valid share is 2.0, but must lie between 0 and 1"),
        (("a", "b", "c", "--inliers", 2), "a homography needs at least 4"),
        (("a", "b", "a"), "a is to be written and read: choose another OUT"),
        (("missing", "b", "c"), "no folder missing"),
        (("--check", "missing", "c"), "missing has the folders of no known dataset: train/huawei_raw (zrr)"),
    ),
)
def test_what_does_not_fit_together_is_refused(call, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(call, align, *arguments) and not files_of(tmp_path)
