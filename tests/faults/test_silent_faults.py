"""Faults that gave a wrong result without a word: now they are refused, mended, or told."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import inference
import process_set
import storage
from data.cache import _digest
from data.files import Reader
from data.folders import Split, open_dataset
from data.photographs import read_photo
from data.sensor import SENSORS
from errors import UserError
from evaluation.tables import Table, read_table
from pretrained import zoo
from pretrained.files import find_weights
from tasks.data import _check_simulated, identify, note_darkness
from tests.faults.commands import options, refused
from training import checkpoint

# --- files -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_weight_is_found(tmp_path):
    """torch.load would return the changed weight."""
    path, weight = tmp_path / "a.pt", torch.linspace(1, 2, 1000)
    storage.save(path, {"weight": weight})
    content = bytearray(path.read_bytes())
    content[content.find(weight.numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.pt is damaged: the checksum of its part .*data/0 is wrong"):
        storage.load(path)


def test_a_checkpoint_of_another_format_is_refused(make_files, tmp_path):
    assert zoo.FORMAT == checkpoint.FORMAT
    name, state = zoo.open_generator(str(make_files()[0]))
    storage.save(tmp_path / "later.pt", {"format": 2, "model": name, "generator": state})
    with pytest.raises(UserError, match="later.pt has the format 2, and this version of the framework reads 1"):
        zoo.open_checkpoint(str(tmp_path / "later.pt"))


def test_files_of_weights_are_known_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net-ba7816bf.pth").write_text("abc")  # whose SHA-256 starts so
    (tmp_path / "mine.pth").write_text("abc")
    source = "auto", "net", "https://host/net-ba7816bf.pth", "nets"
    assert find_weights(*source)[1] == "pretrained (net-ba7816bf.pth)"
    assert find_weights(*source, str(tmp_path / "mine.pth"))[1] == "pretrained (mine.pth, sha256 ba7816bf)"
    (tmp_path / "nets" / "net-ba7816bf.pth").write_text("abd")
    assert find_weights(*source)[1] == "pretrained (net-ba7816bf.pth, sha256 a52d159f)"


@pytest.mark.parametrize("mode", ("RGB", "RGBA"))
def test_photographs_of_another_colour_space_are_converted(tmp_path, mode):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new(mode, (4, 4), (200, 100, 50))
    wide = _with_swapped_primaries(srgb)
    for name, profile in (("plain", None), ("srgb", srgb), ("wide", wide), ("damaged", wide[:200])):
        image.save(tmp_path / f"{name}.png", **({"icc_profile": profile} if profile else {}))
    colours = {name: read_photo(tmp_path / f"{name}.png")[0, 0].tolist() for name in ("plain", "srgb", "damaged")}
    assert set(map(tuple, colours.values())) == {(200, 100, 50)}
    assert read_photo(tmp_path / "wide.png")[0, 0].tolist() == pytest.approx([100, 200, 50], abs=1)


def _with_swapped_primaries(srgb: bytes) -> bytes:
    """A profile whose first channel is green and whose second is red, under another name."""
    return _with_swapped(srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap"))


def _with_swapped(content: bytes) -> bytes:
    """The profile with the primaries of red and green exchanged, so that a conversion is visible."""
    profile = bytearray(content)
    red, green = profile.find(b"rXYZ"), profile.find(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def test_a_negative_mosaic_is_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(buffer, "TIFF")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    reader = Reader(SENSORS["fujifilm"])
    assert reader.mosaic(tmp_path / "a.tif").max() == 300
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match="a.tif is a negative"):
        reader.mosaic(tmp_path / "a.tif")


def test_a_linear_profile_is_not_taken_for_srgb(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    named = profile.replace("sRGB built-in".encode("utf-16-be"), "sRGB linear  ".encode("utf-16-be"))
    Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / "a.png", icc_profile=_with_swapped(named))
    assert named != profile and read_photo(tmp_path / "a.png")[0, 0].tolist() == pytest.approx([100, 200, 50], abs=1)


def test_a_photograph_of_a_line_of_pixels_is_refused(tmp_path):
    Image.new("RGB", (5, 1)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.png has 5x1 pixels: it is no photograph"):
        read_photo(tmp_path / "a.png")


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("white", "told"), ((1023, False), (4095, True), (16383, True)))
def test_a_white_level_of_another_bit_depth_is_told(pairs, capsys, white, told):
    sensor = SENSORS["fujifilm"]
    reader = Reader(type(sensor)(sensor.cfa, sensor.black_level, white))
    note_darkness(Split(tuple(sorted(pairs[0].iterdir())), (), paired=False), reader)
    assert (f"and the white level is {white}: check --data.white-level" in capsys.readouterr().err) == told


def test_validation_pairs_that_are_trained_on_are_told(pairs, tmp_path, capsys):
    raws, photos = (tuple(sorted(folder.iterdir())) for folder in pairs)
    copy = tmp_path / "copy.png"
    copy.write_bytes(raws[0].read_bytes())
    train, other = Split(raws[:8], photos[:8], paired=True), Split(raws[8:10], photos[8:10], paired=True)
    reader = Reader(SENSORS["fujifilm"])
    files = identify({"train": train, "val": other, "test": Split((), (), paired=True)}, reader)
    assert [len(some) for some in files.values()] == [16, 4, 0] and not capsys.readouterr().err
    identify({"train": train, "val": Split((copy, raws[9]), photos[8:10], paired=True)}, reader)
    assert "1 of the 2 mosaics of val are also in train" in capsys.readouterr().err


def test_a_cache_is_not_used_for_other_files_of_the_same_date(pairs):
    split = open_dataset("folders", "", *map(str, pairs), "yes", val=0, test=0)["train"]
    reader, path = Reader(SENSORS["fujifilm"]), split.photos[0]
    before, date = _digest(split, reader), path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(date, date))
    assert _digest(split, reader) != before


@pytest.mark.parametrize("content", ("[", '{"camera": {"cfa": "BGGR"}}'))
def test_a_damaged_camera_json_is_told(pairs, small_config, tmp_path, capsys, content):
    (tmp_path / "camera.json").write_text(content)
    _check_simulated(tmp_path / "camera.json", SENSORS["fujifilm"])
    assert "camera.json is not read: it is damaged, or not of data.simulate" in capsys.readouterr().err


def test_folders_that_are_not_searched_are_told(tmp_path, make_pairs, capsys):
    make_pairs(tmp_path / "train" / "mediatek_raw", tmp_path / "train" / "fujifilm", 4, 0)
    make_pairs(tmp_path / "validation" / "mediatek_raw", tmp_path / "validation" / "fujifilm", 2, 1)
    (tmp_path / "train" / "fujifilm" / "more").mkdir()
    open_dataset("fujifilm", str(tmp_path), val=0, test=0)
    printed = capsys.readouterr().err
    assert "validation is not used: the folders of a dataset are train, val and test" in printed
    assert "such as more, are not searched for images" in printed


# --- scores ----------------------------------------------------------------------------------------------------------


def test_scores_of_different_networks_are_not_ranked_together(make_run, call):
    run = make_run(count=2)
    assert call(inference, "--all", *options(run), "--measures", "lpips", "psnr")[0] == 0
    ranking = call(process_set, "--rank", *options(run)[:2], "--measures", "lpips")[1]
    assert "note: lpips had random weights: this ranking says little" in ranking
    table = sorted((run / "scores").glob("step_*.csv"))[0]
    table.write_text(table.read_text().replace("# lpips: random (seed 0)", "# lpips: pretrained (a.pth)"))
    output = refused(call, process_set, "--rank", *options(run)[:2], "--measures", "lpips")
    assert "cannot be ranked together: 'lpips' was pretrained (a.pth) for the one and random (seed 0)" in output


def test_infinite_scores_are_told(make_run, call):
    run = make_run(count=2)
    assert call(inference, "--all", *options(run))[0] == 0
    path = sorted((run / "scores").glob("step_*.csv"))[0]
    table = read_table(path)
    Table(table.header, table.columns, table.rows, {"psnr": float("inf")}).write(path)
    assert "the psnr of 1 checkpoints is infinite" in call(process_set, "--rank", *options(run)[:2])[1]


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    (MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: ...")),
)
def test_a_full_memory_is_not_a_damaged_file(make_run, call, monkeypatch, error):
    run = make_run(count=1)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("evaluation.scoring.Scorer.evaluate", fail)
    assert "the memory is full" in refused(call, inference, "--all", *options(run))
    monkeypatch.setattr(torch, "load", fail)
    if isinstance(error, MemoryError):
        assert "the memory is full" in refused(call, inference, "--all", *options(run))
