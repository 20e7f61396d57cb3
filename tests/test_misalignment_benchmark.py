"""The benchmark of misaligned pairs: its datasets are what they say, each row is run once, and its table is written."""

import json

import imageio.v3 as iio
import numpy as np
import pytest

from data import alignment
from errors import UserError

from .benchmark_runs import run_main
from .fit_runs import write_scenes

SIDE = 80
TINY = "--data.patch 32 --data.batch 2 --train.steps 2 --log.val-every 2 --log.save-every 2"

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def pairs(tmp_path):
    """Four pairs to train on and one to validate on."""
    for part, names in (("train", range(4)), ("val", range(8, 9))):
        write_scenes(
            tmp_path / "pairs" / part / "mediatek_raw", tmp_path / "pairs" / part / "fujifilm", names, side=SIDE
        )
    return tmp_path / "pairs"


@pytest.fixture
def tiny(load, monkeypatch):
    """load(name) with a short training and an alignment that moves nothing, and refuses every fourth pair."""
    calls = []

    def align(rendered, photo, options):
        assert rendered.shape == photo.shape and options == alignment.Options()
        calls.append(len(calls))
        if len(calls) % 4 == 0:
            raise alignment.NotAligned("too few features")
        height, width, _ = rendered.shape
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        still = np.zeros((height, width), np.float32)
        return alignment.Alignment(np.dstack((columns, rows)), columns < 30, still, scale=1.0, figures={})

    def loaded(name: str):
        module = load(name)
        monkeypatch.setattr(alignment, "align", align)
        module.TRAINING = f"{module.TRAINING} {TINY}"
        return module

    return loaded


def test_photographs_are_moved_by_the_shift(load):
    module, rows, columns = load("misalignment"), *np.indices((SIDE, SIDE))
    photo = np.stack((2 * columns, 2 * rows, columns + rows), axis=2).astype(np.uint8)
    directions = []
    for pair in range(6):
        still = module.motion(pair, 0, 0, photo.shape[:2])
        assert np.array_equal(module.moved(photo, still), photo[16:-16, 16:-16])
        shifted, both = (module.motion(pair, shift, turn, photo.shape[:2]) for shift, turn in ((4, 0), (2, 4)))
        directions.append(tuple((shifted - still)[:, 2]))
        assert np.hypot(*directions[-1]) == pytest.approx(4)
        for matrix in (shifted, both):
            x, y = np.einsum("ij,jhw->ihw", matrix, np.stack((columns, rows, np.ones_like(rows))))[:, :48, :48]
            np.testing.assert_allclose(module.moved(photo, matrix), np.stack((2 * x, 2 * y, x + y), axis=2), atol=0.8)
    assert len(set(directions)) == 6
    turned = module.motion(0, 0, 4, photo.shape[:2])
    assert turned[:, :2] != pytest.approx(np.eye(2)) and turned @ (23.5, 23.5, 1) == pytest.approx((39.5, 39.5))
    with pytest.raises(UserError, match="a shift of 13 and a rotation of 0 need a margin of 17.0 > 16"):
        module.motion(0, 13, 0, photo.shape[:2])


def test_finished_rows_are_tabled_and_not_run_again(tiny, monkeypatch, tmp_path, capsys, pairs):
    out, document, module = tmp_path / "out", tmp_path / "page.md", tiny("misalignment")

    def run(*more: object) -> None:
        options = (pairs, "--out", out, "--shifts", 0, 2, "--seeds", 5, "--write", document, *more)
        run_main(lambda _: module, monkeypatch, "misalignment", *options)

    with pytest.raises(UserError, match="page.md has no place for the table: the lines <!--"):
        run()
    document.write_text(f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n")
    run()
    printed = capsys.readouterr().out
    files = {file.stem: json.loads(file.read_text()) for file in (out / "scores").iterdir()}
    assert files.keys() == {f"{way}_{shift}_5" for way in module.WAYS for shift in (0, 2)}
    counts = {name.split("_")[0]: file["pairs"] for name, file in files.items()}
    assert counts == {"shifted": 4, "aligned": 3, "masked": 3}
    assert files["aligned_2_5"]["means"] != files["masked_2_5"]["means"]
    line = next(line for line in printed.splitlines() if line.startswith("| 2 | aligned, with masks"))
    psnr = files["masked_2_5"]["means"]["psnr"]
    assert line.startswith(f"| 2 | aligned, with masks | 3 | {psnr:.2f} ({psnr:.2f}) | ")
    text = document.read_text()
    assert text.startswith(f"before\n{module.BEGIN}\n| shift") and text.endswith(f"|\n{module.END}\nafter\n")
    assert line in text and "old" not in text
    configs = {file.parent.name: json.loads(file.read_text()) for file in (out / "runs").glob("*/config.json")}
    assert {name for name, config in configs.items() if config["data"]["masks"]} == {"masked_0_5", "masked_2_5"}

    monkeypatch.setattr(module, "score", lambda *_: pytest.fail("a finished row was scored again"))
    run()
    with pytest.raises(UserError, match="is of other pairs, another shift or rotation: give another --out"):
        run("--rotation", 0.5)
    monkeypatch.setattr(module, "TRAINING", "quick")
    with pytest.raises(UserError, match="shifted_0_5.json is of other settings .quick --train.mode paired .*: remove"):
        run()
    (out / "scores" / "masked_0_5.json").write_text("[]")
    with pytest.raises(UserError, match="masked_0_5.json holds no scores of this benchmark"):
        run("--results")


def test_aligned_pairs_have_masks_and_mosaics_that_are_cropped_alone(tiny, tmp_path, pairs):
    module, data = tiny("misalignment"), tmp_path / "data"
    assert module.make_dataset(str(pairs), data, aligned=True, shift=2, rotation=0) == 3  # the last one is refused
    assert (iio.imread(data / "masks" / "0.png") == 255 * (np.arange(48) < 30)).all()
    whole = iio.imread(pairs / "train" / "mediatek_raw" / "2.png")
    assert np.array_equal(iio.imread(data / "train" / "mediatek_raw" / "2.png"), whole[16:-16, 16:-16])
    assert not (data / "train" / "fujifilm" / "3.png").exists() and (data / "val" / "fujifilm" / "8.png").is_file()
