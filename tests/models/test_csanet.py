"""CSANet: outputs of the published graph, whose input has another order and unit; gradients; any even size."""

import pytest
import torch

from data.inputs import prepare
from data.sensor import SENSORS
from models import MODELS
from models.csanet import CSANet
from pretrained.tensorflow_weights import for_pixel_shuffle, to_torch
from tests.models.baselines import golden, parameters, tensor

ATTENTION = ("widen", "mix", "spatial", "squeeze", "excite", "join")
LAYERS = (
    {"down": "conv2d", "head": "conv2d_1", "body": "conv2d_15", "up": "conv2d_transpose"}
    | {"merge": "conv2d_20", "tail": "conv2d_21"}
    | dict(
        zip(
            (f"attention1.{layer}" for layer in ATTENTION),
            ("conv2d_4", "conv2d_5", "depthwise_conv2d", "conv2d_6", "conv2d_7", "conv2d_8"),
            strict=True,
        )
    )
    | dict(
        zip(
            (f"attention2.{layer}" for layer in ATTENTION),
            ("conv2d_9", "conv2d_10", "depthwise_conv2d_1", "conv2d_11", "conv2d_12", "conv2d_13"),
            strict=True,
        )
    )
)
OURS = [2, 1, 3, 0]  # where our planes R, Gr, Gb, B are among the published ones: B, Gr, R, Gb


def published() -> tuple[CSANet, object]:
    """CSANet with the published graph's weights, and the golden file."""
    values, network = golden("csanet"), CSANet()
    state = {}
    for key in network.state_dict():
        layer, kind = key.rsplit(".", 1)
        kernel = "depthwise_kernel" if layer.endswith("spatial") else "kernel"
        array = values[f"weights/generator/{LAYERS[layer]}/{'bias' if kind == 'bias' else kernel}"]
        state[key] = to_torch(array, depthwise=kernel == "depthwise_kernel")
    state |= {key: for_pixel_shuffle(state[key]) for key in ("merge.weight", "merge.bias")}
    for attention in ("attention1", "attention2"):  # we join first what is weighted by channel, then that by pixel
        state[f"{attention}.join.weight"] = state[f"{attention}.join.weight"].roll(32, dims=1)
    state["down.weight"] = state["down.weight"][:, OURS]
    network.load_state_dict(state)
    return network.double(), values


def test_parameter_count():
    assert parameters(CSANet()) == 28_511


@pytest.mark.parametrize("suffix", ("", "_2"))
def test_output_of_the_published_graph(suffix):
    network, values = published()
    inputs = tensor(values[f"input{suffix}"])[:, OURS] / 4095
    with torch.no_grad():
        output = network(inputs)
    torch.testing.assert_close(output, tensor(values[f"output{suffix}"]), atol=1e-5, rtol=0)


def test_input_is_the_published_one_in_our_order_and_unit():
    """The golden mosaic is one of 10 bits times 4, so that 4092 is white: white is 1 here, and 4092 / 4095 there."""
    values = golden("csanet")
    mosaic = tensor(values["mosaic"].astype("float64"))[:, None] / 4092
    inputs = prepare(mosaic, SENSORS["fujifilm"], MODELS["csanet"].input_format)
    torch.testing.assert_close(inputs, tensor(values["input"])[:, OURS] / 4092)


def test_a_size_that_is_no_multiple_of_4_is_padded_at_the_end():
    network, packed = CSANet(), torch.rand(1, 4, 7, 9)
    whole = torch.nn.functional.pad(packed, (0, 1, 0, 1), mode="reflect")
    with torch.no_grad():
        output = network(packed)
        assert output.shape == (1, 3, 14, 18)
        torch.testing.assert_close(output, network(whole)[..., :14, :18])


def test_gradients_reach_every_parameter():
    reached = set()
    for seed in range(3):  # with a single seed, a ReLU may be 0 everywhere
        torch.manual_seed(seed)
        network = CSANet()
        network(torch.rand(2, 4, 16, 16)).square().sum().backward()
        reached |= {key for key, parameter in network.named_parameters() if parameter.grad.abs().max() > 0}
    assert reached == {key for key, _ in network.named_parameters()}
