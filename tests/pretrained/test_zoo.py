"""Generators' files: checkpoints name their model, released files and those of TensorFlow are recognised."""

import os
from pathlib import Path

import pytest
import torch

import storage
from errors import UserError
from models import MODELS, build_model
from pretrained import zoo
from pretrained.released import RELEASED
from pretrained.zoo import open_checkpoint, open_generator, recognise

NAME = "Fujifilm/Efficient_ISP_unpaired_step_27220"
FILES = {
    "Efficient_ISP_unpaired_step_27220.pth": "efficient",
    "Robust_unpaired_step_66090.pth": "robust",
    "RMFA_TINY_unpaired_step_48270.pth": "rmfa-tiny",
}


def released_file(file: str) -> Path:
    folder = os.environ.get("ISP_RELEASED")
    if not folder:
        pytest.skip("ISP_RELEASED is not set: a folder with the released .pth files")
    return Path(folder) / file


# --- reading generators ----------------------------------------------------------------------------------------------


def empty(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return build_model(name).state_dict()


def test_every_model_has_keys_and_shapes_of_its_own():
    """So each is recognised by them."""
    known = {frozenset((key, tuple(value.shape)) for key, value in empty(name).items()) for name in MODELS}
    assert len(known) == len(MODELS)


@pytest.mark.parametrize(
    "name", ("efficient", "efficient-context", "robust", "rmfa-medium", "lan", "microisp", "csanet")
)
def test_models_are_recognised_by_keys_and_shapes(name):
    assert recognise(empty(name), "here") == name


@pytest.mark.parametrize("file, name", FILES.items())
def test_released_file_is_recognised_and_runs(file, name):
    recognised, state, description = open_checkpoint(str(released_file(file)))
    assert recognised == name and description == {}
    generator = build_model(name)
    generator.load_state_dict(state)
    size = (1, 4, 4, 4) if MODELS[name].input_format == "packed" else (1, 3, 8, 8)
    with torch.no_grad():
        assert generator(torch.rand(size)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("file", FILES)
def test_released_files_have_the_listed_hashes(file):
    assert storage.sha256_of(released_file(file)) == RELEASED[f"Fujifilm/{file.removesuffix('.pth')}"].sha256


def changed(change) -> dict:
    """The state dict of an Efficient ISP after `change`."""
    state = dict(build_model("efficient").state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "state",
    (
        {},
        {"generator_of_something": 3},
        changed(lambda state: state.pop("conv1.bias")),
        changed(lambda state: state.update(extra=torch.ones(1))),
        changed(lambda state: state.update({"conv1.bias": torch.ones(13)})),
    ),
)
def test_state_dict_that_fits_no_model_is_refused_and_lists_the_known_ones(state):
    with pytest.raises(UserError, match="w.pth does not hold a generator.*none of.*" + ", ".join(MODELS)):
        recognise(state, "w.pth")


def test_bare_state_dict_is_opened_by_its_shapes(tmp_path):
    state = build_model("robust").state_dict()
    torch.save(state, tmp_path / "w.pth")
    name, opened, description = open_checkpoint(str(tmp_path / "w.pth"))
    assert name == "robust" and description == {}
    assert opened.keys() == state.keys() and all(torch.equal(opened[key], value) for key, value in state.items())


def test_checkpoint_of_fit_is_opened_with_its_model_and_description(tmp_path):
    state = build_model("robust").state_dict()
    description = {"format": 1, "model": "robust", "step": 10, "sensor": {"cfa": "grbg"}}
    torch.save(description | {"generator": state}, tmp_path / "step_0000010.pt")
    name, opened, found = open_checkpoint(str(tmp_path / "step_0000010.pt"))
    assert name == "robust" and found == description
    assert opened.keys() == state.keys() and all(torch.equal(opened[key], value) for key, value in state.items())
    assert open_generator(str(tmp_path / "step_0000010.pt"))[0] == "robust"


def test_checkpoint_names_its_model_where_shapes_would_not(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "twin", MODELS["efficient"])
    torch.save({"model": "twin", "generator": build_model("twin").state_dict()}, tmp_path / "w.pt")
    assert open_generator(str(tmp_path / "w.pt"))[0] == "twin"


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ({"model": "efficient", "generator": torch.ones(3)}, "'generator' is a Tensor"),
        ({"generator": changed(lambda state: None)}, "does not name its model"),
        ({"model": 3, "generator": changed(lambda state: None)}, "does not name its model"),
        (
            {"model": "huge", "generator": changed(lambda state: None)},
            "unknown model 'huge'; known are: " + ", ".join(MODELS),
        ),
    ),
)
def test_checkpoint_without_a_known_model_is_refused_by_name(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt .*{message}"):
        open_checkpoint(str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda state: state.pop("conv1.bias"), "conv1.bias is missing"),
        (lambda state: state.update({"conv1.bias": torch.ones(13)}), r"conv1.bias has the shape \(13,\), not \(12,\)"),
        (lambda state: state.update({"conv1.bias": 1}), "conv1.bias is not a tensor"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is not part of the model"),
    ),
)
def test_checkpoint_whose_weights_do_not_fit_its_model_is_refused_by_name(change, message, tmp_path):
    torch.save({"model": "efficient", "generator": changed(change)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt holds weights that do not fit its model 'efficient': {message}"):
        open_checkpoint(str(tmp_path / "w.pt"))


# --- names and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    (
        (NAME, NAME),
        (f"{NAME}.pth", NAME),
        ("released:Fujifilm/Efficient_ISP_unpaired", NAME),
        ("Fujifilm/Efficient_ISP_paired", "Fujifilm/Efficient_ISP_paired_step_37580"),
        ("Fujifilm/Efficient_ISP_paired_wo_adv_losses", "Fujifilm/Efficient_ISP_paired_wo_adv_losses_step_31190"),
        ("Fujifilm/Efficient", ""),
        ("Efficient_ISP_unpaired", ""),
    ),
)
def test_full_name_needs_no_step(name, key):
    assert zoo.full_name(name) == key


def test_local_file_takes_precedence_over_a_released_name(tmp_path, monkeypatch, one_released, downloads):
    monkeypatch.chdir(tmp_path)
    assert zoo.locate("released:Fujifilm/Efficient_ISP_unpaired").read_text() == one_released
    Path("Fujifilm").mkdir()
    Path(NAME).write_text("mine")
    assert zoo.locate(NAME) == Path(NAME) and len(downloads) == 1
    with pytest.raises(UserError, match="no file elsewhere, and no released model.*python -m pretrained.zoo"):
        zoo.locate("elsewhere")


def test_a_training_state_is_not_a_generator(tmp_path):
    torch.save({"stage": "train", "step": 3, "trainer": {}}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="last.pt is the training state of a run, not a generator: name a file in its"):
        open_checkpoint(str(tmp_path / "last.pt"))
