"""The mosaics of a folder or a file, without a dataset's layout."""

import pytest

from data.folders import Split, mosaics
from errors import UserError


def test_mosaics_of_a_folder_have_no_photographs(tmp_path, write_mosaic):
    for name in ("b", "a"):
        write_mosaic(tmp_path / f"{name}.png")
    assert mosaics(tmp_path) == Split((tmp_path / "a.png", tmp_path / "b.png"), (), paired=False)


def test_one_mosaic_is_a_file_and_may_have_a_photograph_of_any_name(tmp_path, write_mosaic):
    write_mosaic(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"")
    assert mosaics(tmp_path / "a.png") == Split((tmp_path / "a.png",), (), paired=False)
    both = Split((tmp_path / "a.png",), (tmp_path / "b.jpg",), paired=True)
    assert mosaics(tmp_path / "a.png", tmp_path / "b.jpg") == both


@pytest.mark.parametrize(
    ("names", "sentence"),
    (
        (("b.jpg",), "b.jpg is not a mosaic: its suffix is none of .*.dng"),
        (("a.png", "a.txt"), "a.txt is not a photograph: its suffix is none of .jpeg, .jpg"),
        (("a.png", "c.jpg"), "no file .*c.jpg"),
        (("a.png", "folder"), "folder is a folder, but should be a file"),
        (("c.png",), "no folder .*c.png"),
    ),
)
def test_files_that_are_no_mosaic_or_photograph_are_refused(tmp_path, write_mosaic, names, sentence):
    write_mosaic(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    for name in ("b.jpg", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=sentence):
        mosaics(*(tmp_path / name for name in names))
