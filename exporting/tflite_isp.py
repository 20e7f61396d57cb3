"""Efficient and Robust ISP as a TFLite graph: CONV_2D, TANH, CONV_2D, CONV_2D, DEPTH_TO_SPACE, nothing of rank 5.

Around these stand SUB and MUL for the levels, if they are in the file, and MINIMUM, which clips; ReLU is part of the
convolutions. In 8 bits, QUANTIZE and DEQUANTIZE stand between: input and output are float32, and clipping is free.
"""

import numpy as np
import torch

from data.sensor import Sensor
from exporting.graphs import packed_levels
from exporting.quantise import Scale, scale_of_filters
from exporting.tflite_file import TFLiteWriter
from models.efficient import EfficientISP

SAME_SIZE = {"padding": 0, "strideH": 1, "strideW": 1}  # the schema's Padding.SAME: zeros, as in PyTorch
RELU = 1  # in the schema's ActivationFunctionType


def is_supported(network: torch.nn.Module) -> bool:
    """Whether there is a TFLite graph of this network. A subclass may compute something else."""
    return type(network) is EfficientISP


def write_isp(
    network: EfficientISP,
    sensor: Sensor | None = None,
    size: tuple[int, int] | None = None,
    half: bool = False,
    scales: dict[str, Scale] | None = None,
) -> bytes:
    """The file.

    Args:
        network: Efficient or Robust ISP, on the CPU.
        sensor: the camera whose levels are subtracted in the file; None: the input is normalised.
        size: (height, width) of the mosaic; None: any.
        half: store the weights in 16-bit floating point.
        scales: as `exporting.quantise.calibrate` gives them: 8-bit integers.
    """
    file = TFLiteWriter(size and (size[0] // 2, size[1] // 2))
    raw = x = file.tensor("raw", 4)
    if sensor is not None:
        black, factor = map(file.constant, ("black", "factor"), (levels.numpy() for levels in packed_levels(sensor)))
        x = file.operator("SUB", [x, black], file.tensor("above_black", 4), "SubOptions")
        x = file.operator("MUL", [x, factor], file.tensor("normalised", 4), "MulOptions")
    add = _Layers(file, half, scales)
    x = add.quantise(x)
    x = add.convolution("conv1", x, network.conv1.weight, network.conv1.bias, relu=False)
    x = file.operator("TANH", [x], add.layer("tanh", network.conv1.out_channels))
    x = add.convolution("conv2", x, network.conv2.weight, network.conv2.bias)
    # DEPTH_TO_SPACE takes the channels in the order (row, column, colour), a pixel shuffle (colour, row, column).
    order = network.order.cpu()
    x = add.convolution("image", x, network.conv3.weight[order], network.conv3.bias[order])
    return file.finish([raw], [add.picture(x)])


class _Layers:
    """The layers of the network in float32, with float16 weights, or in int8."""

    def __init__(self, file: TFLiteWriter, half: bool, scales: dict[str, Scale] | None):
        self.file, self.half, self.scales = file, half, scales
        self.scale_of: dict[int, Scale] = {}  # of the tensors so far

    def layer(self, name: str, channels: int, factor: int = 1, scale: str = "") -> int:
        """A tensor of the network; in int8 with the scale of this name, or of its own."""
        if not self.scales:
            return self.file.tensor(name, channels, factor)
        made = self.file.tensor(name, channels, factor, "int8", self.scales[scale or name])
        self.scale_of[made] = self.scales[scale or name]
        return made

    def quantise(self, x: int) -> int:
        """The input in int8; otherwise as it is."""
        return self.file.operator("QUANTIZE", [x], self.layer("packed", 4)) if self.scales else x

    def convolution(self, name: str, x: int, weight: torch.Tensor, bias: torch.Tensor, relu: bool = True) -> int:
        """A convolution whose result has this name; filters (out, in, 3, 3) become (out, 3, 3, in)."""
        filters, bias = weight.detach().permute(0, 2, 3, 1).cpu().numpy(), bias.detach().cpu().numpy()
        inputs = [x, *self._parameters(name, filters, bias, x)]
        activation = {"fusedActivationFunction": RELU if relu else 0}
        output = self.layer(name, len(bias))
        return self.file.operator("CONV_2D", inputs, output, "Conv2DOptions", **SAME_SIZE, **activation)

    def picture(self, x: int) -> int:
        """The last layer's 12 channels as the image in [0, 1], float32."""
        if self.scales:  # its scale has clipped it
            x = self._shuffle(x, self.layer("picture", 3, 2, "image"))
            return self.file.operator("DEQUANTIZE", [x], self.file.tensor("image", 3, 2))
        one = self.file.constant("one", np.float32(1).reshape(1))
        x = self.file.operator("MINIMUM", [x, one], self.file.tensor("clipped", 12), "MaximumMinimumOptions")
        return self._shuffle(x, self.file.tensor("image", 3, 2))

    def _shuffle(self, x: int, output: int) -> int:
        return self.file.operator("DEPTH_TO_SPACE", [x], output, "DepthToSpaceOptions", blockSize=2)

    def _parameters(self, name: str, filters: np.ndarray, bias: np.ndarray, x: int) -> tuple[int, int]:
        file = self.file
        if self.scales:
            scale = scale_of_filters(filters)
            of_bias = Scale(scale.scale * self.scale_of[x].scale)  # what the products of integers stand for
            return (
                file.constant(f"{name}/weight", scale.of(filters), scale),
                file.constant(f"{name}/bias", of_bias.of(bias, np.int32), of_bias),
            )
        weight = file.constant(f"{name}/weight", filters.astype(np.float16) if self.half else filters)
        if self.half:
            real = file.computed(f"{name}/weight_float32", filters.shape)
            weight = file.operator("DEQUANTIZE", [weight], real, "DequantizeOptions")
        return weight, file.constant(f"{name}/bias", bias)
