"""TensorFlow checkpoints of LAN and MicroISP: layouts of their variables, opening them like any generator's file."""

from pathlib import Path

import numpy as np
import pytest
import torch

import storage
from errors import UserError
from models import build_model
from pretrained import released, zoo
from pretrained.released import RELEASED, Released, cache_folder, download
from pretrained.tensorflow_bundle import files_of
from pretrained.tensorflow_weights import NETWORKS, for_pixel_shuffle, lan_state, to_torch
from tests.models.baselines import golden
from tests.pretrained.bundles import write_bundle

_ATTENTION = ((3, 3, 16, 32), (1, 1, 32, 32), (1, 1, 32, 8), (1, 1, 8, 32), (5, 5, 32, 1), (3, 3, 64, 16))
KERNELS = [(4, 4, 1, 16), (3, 3, 16, 16), (3, 3, 16, 16), *_ATTENTION, *_ATTENTION]
KERNELS += [(3, 3, 16, 16), (3, 3, 16, 16), (3, 3, 32, 16), (3, 3, 4, 3)]


def lan_variables() -> dict[str, np.ndarray]:
    """Random ones, in the order of their creation: a kernel, then its bias, which the depthwise ones do not have."""
    rng, shapes = np.random.default_rng(0), []
    for kernel in KERNELS:
        shapes += [kernel] if kernel[:2] == (5, 5) else [kernel, kernel[3:]]
    names = ["generator/Variable", *(f"generator/Variable_{index}" for index in range(1, len(shapes)))]
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in zip(names, shapes, strict=True)}


@pytest.fixture
def lan_file(tmp_path) -> Path:
    (tmp_path / "here").mkdir()
    return write_bundle(tmp_path / "here" / "LAN_iteration_7.ckpt.index", lan_variables())


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_kernels_are_transposed_to_pytorch():
    kernel = np.random.default_rng(0).standard_normal((3, 5, 2, 4)).astype(np.float32)
    converted = to_torch(kernel)
    assert converted.shape == (4, 2, 3, 5) and converted.is_contiguous() and converted[1, 0, 2, 4] == kernel[2, 4, 0, 1]
    depthwise = to_torch(kernel[..., :1], depthwise=True)
    assert depthwise.shape == (2, 1, 3, 5) and depthwise[1, 0, 2, 4] == kernel[2, 4, 1, 0]
    assert to_torch(kernel[:1, :1, 0]).shape == (4,)


def test_channels_ahead_of_a_depth_to_space_are_reordered():
    """TensorFlow's channel (row, column, colour) becomes PyTorch's (colour, row, column)."""
    channels = torch.arange(12.0)  # of three colours
    image = torch.nn.functional.pixel_shuffle(for_pixel_shuffle(channels).view(1, 12, 1, 1), 2)
    assert torch.equal(image[0].permute(1, 2, 0).flatten(), channels)


def test_variables_of_lan_go_by_their_order():
    variables = lan_variables()
    state = lan_state(variables)
    assert torch.equal(state["attention1.spatial.weight"], to_torch(variables["generator/Variable_14"], depthwise=True))
    assert torch.equal(state["attention2.widen.bias"], to_torch(variables["generator/Variable_18"]))
    assert torch.equal(state["up.weight"], to_torch(variables["generator/Variable_30"]))
    assert len(NETWORKS["LAN"][0]) == 36 and len(set(NETWORKS["MicroISP"][0])) == 2 * (3 * 16 + 3 * 24 + 3 * 17)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ("", ".index", ".data-00000-of-00001"))
def test_a_checkpoint_is_opened_by_each_of_its_names(lan_file, ending):
    name, state, description = zoo.open_checkpoint(str(lan_file).removesuffix(".index") + ending)
    expected = lan_state(lan_variables())
    assert name == "lan" and description == {} and not zoo.is_mapper(str(lan_file))
    assert state.keys() == expected.keys() and all(torch.equal(state[key], value) for key, value in expected.items())
    build_model(name).load_state_dict(state)


def test_variables_of_an_optimizer_are_not_read(lan_file):
    write_bundle(lan_file, lan_variables() | {"generator/Variable/Adam": np.zeros(2), "step": np.zeros((), np.int32)})
    assert zoo.open_generator(str(lan_file))[0] == "lan"


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"generator/Variable_35": None}, "has not the variables of LAN or MicroISP, but others, such as generator/"),
        ({"generator/Variable_3": np.zeros(5, np.float32)}, "does not hold a generator: it fits none of the known"),
        ({"generator/Variable_33": np.zeros(5, np.float32)}, "holds variables that do not fit together"),
        ({"generator/Variable_3": np.full(16, np.nan, np.float32)}, "has weights that are not finite"),
        ({"generator/Variable_3": np.zeros(16)}, "variable generator/Variable_3 is not an array of 32-bit floats"),
    ),
)
def test_other_variables_are_refused_in_a_sentence(lan_file, changes, message):
    variables = {name: array for name, array in (lan_variables() | changes).items() if array is not None}
    write_bundle(lan_file, variables)
    with pytest.raises(UserError, match=f"LAN_iteration_7.ckpt.* {message}"):
        zoo.open_checkpoint(str(lan_file))


# --- released --------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_bundle(monkeypatch, lan_file, downloads) -> list[str]:
    """Gives LAN the hashes of `lan_file`, which its downloads copy; the list holds the requested URLs."""
    index, data = files_of(lan_file)
    hashes = storage.sha256_of(index), storage.sha256_of(data)
    monkeypatch.setitem(RELEASED, "LAN", Released(hashes[0], "a setting", "https://host/LAN.ckpt", hashes[1]))

    def copy(url: str, path: Path, sha256: str, *others: str) -> Path:
        downloads.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((index if url.endswith(".index") else data).read_bytes())
        return path

    monkeypatch.setattr(released, "fetch", copy)
    return downloads


def test_both_files_are_downloaded_once_and_opened_by_name(one_bundle):
    assert zoo.open_generator("LAN")[0] == "lan" and zoo.open_generator("released:LAN")[0] == "lan"
    assert one_bundle == ["https://host/LAN.ckpt.data-00000-of-00001", "https://host/LAN.ckpt.index"]
    assert download("LAN") == cache_folder() / "LAN.index"


def test_a_damaged_file_alone_is_downloaded_again(one_bundle):
    data = files_of(download("LAN"))[1]
    data.write_bytes(b"damaged")
    assert download("LAN").is_file() and len(one_bundle) == 3 and data.stat().st_size == 4 * 46_847


@pytest.mark.parametrize("name", ("LAN", "MicroISP"))
def test_the_published_files_hold_the_golden_weights(name, require_cached):
    require_cached(*(f"released_isp/{name}{ending}" for ending in (".index", ".data-00000-of-00001")))
    values = golden(name.lower())
    variables = {key.removeprefix("weights/"): values[key] for key in values.files if key.startswith("weights/")}
    expected, (model, state, _) = NETWORKS[name][1](variables), zoo.open_checkpoint(name)
    assert model == name.lower() and all(torch.equal(state[key], value) for key, value in expected.items())
