"""ONNX files: one graph for all sizes, run by ONNX Runtime."""

import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import storage
from errors import UserError

OPSET = 18  # what PyTorch's exporter writes without converting it; ONNX Runtime reads it since 1.14

Inputs = dict[str, np.ndarray]


def write_onnx(module: nn.Module, example: dict[str, Tensor]) -> bytes:
    """An ONNX file of the phone's form of a network, for any height and width of `raw`.

    Args:
        module: `exporting.graphs.PhoneISP`.
        example: inputs of a size at which no side of an inner layer is 1: that would be taken as fixed.
            Tracing proves that the graph holds from this size on; whether it holds for smaller ones, running it shows.

    Raises `UserError` for a network that PyTorch cannot export, such as one that decides by an image's values.
    """
    sides = {2: "height", 3: "width"}
    size = {axis: torch.export.Dim(name, min=example["raw"].shape[axis]) for axis, name in sides.items()}
    dynamic = {name: size if name == "raw" else None for name in example}
    try:
        with _quietly():
            # What the exporter cannot prove of all sizes (that an image padded to a multiple is at least as large as it
            # was) is left out: export.py runs the file on several sizes.
            traced = torch.export.export(
                module,
                tuple(example.values()),
                dynamic_shapes=dynamic,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(example),
                output_names=["image"],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # tracing ends with errors of many types, the network's own among them
        reason = storage.first_line(error.__cause__ or error)
        raise UserError(f"PyTorch's exporter to ONNX does not take this network: {reason}") from None
    return _without_notes(program.model_proto).SerializeToString()


def _without_notes(model: Any) -> Any:
    """The model without the exporter's notes: stack traces name local files, and its inner shapes may be wrong.

    An even side that is halved, halved again (odd: rounded down) and doubled has not the size that it notes; runtimes
    that believe it fail.
    """
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def quantise_onnx(content: bytes, samples: Sequence[Inputs]) -> bytes:
    """The file with its convolutions in 8-bit integers (QDQ), calibrated on `samples`; all else stays as it is."""
    import onnx
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):
        def __init__(self):
            self.rest = iter(samples)

        def get_next(self):
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = Path(folder) / "model.onnx"
        quantization.quantize_static(
            onnx.load_from_string(content),
            path,
            Samples(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return _without_notes(onnx.load(path)).SerializeToString()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's and the quantiser's own messages: export.py checks what they wrote."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class OnnxModel:
    """An ONNX file in ONNX Runtime, on this machine's CPU."""

    def __init__(self, content: bytes, threads: int = 1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.content = content
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Inputs) -> np.ndarray:
        """{name: float32 array} -> the image (1, 3, H, W)."""
        return self.session.run(None, inputs)[0]

    def operators(self) -> dict[str, int]:
        """How many nodes of each kind the graph has."""
        import onnx

        return dict(Counter(node.op_type for node in onnx.load_from_string(self.content).graph.node))
