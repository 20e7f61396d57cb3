"""TFLite files, written operator by operator: NHWC, one input, one output, any height and width or a fixed one.

PyTorch's own way to TFLite splits the pixel shuffle into reshapes and transposes, and needs packages that do not fit
beside this project's. The file format is a FlatBuffer, whose schema the LiteRT package brings as Python classes.
"""

from collections import Counter
from typing import Any

import numpy as np

from exporting.quantise import Scale

IDENTIFIER = b"TFL3"
VERSION = 3  # of the schema
TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8", "int32": "INT32"}
# The version of an operator that first takes this type of input; 1 for others.
OPERATOR_VERSIONS = {
    ("CONV_2D", "int8"): 3,
    ("DEPTH_TO_SPACE", "int8"): 2,
    ("DEQUANTIZE", "float16"): 3,
    ("DEQUANTIZE", "int8"): 2,
    ("TANH", "int8"): 2,
}


class TFLiteWriter:
    """A graph that grows operator by operator; tensors are numbers. `size` is (height, width), or None for any."""

    def __init__(self, size: tuple[int, int] | None = None):
        from ai_edge_litert import schema_py_generated

        self.schema = schema_py_generated
        self.size = size
        self.tensors: list[Any] = []
        self.types: list[str] = []
        self.buffers = [self.schema.BufferT()]  # the first one is empty: of all tensors that are computed
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def tensor(
        self, name: str, channels: int, factor: int = 1, dtype: str = "float32", scale: Scale | None = None
    ) -> int:
        """An image, input or computed: (1, factor * height, factor * width, channels)."""
        height, width = (factor * side for side in self.size or (1, 1))
        made = self.computed(name, (1, height, width, channels), dtype, scale)
        if self.size is None:
            self.tensors[made].shapeSignature = [1, -1, -1, channels]
        return made

    def computed(self, name: str, shape: tuple[int, ...], dtype: str = "float32", scale: Scale | None = None) -> int:
        """A tensor of this shape; `scale` says what its integers stand for."""
        made = self.schema.TensorT()
        made.name, made.shape = name.encode(), list(shape)
        made.type = getattr(self.schema.TensorType, TYPES[dtype])
        if scale:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = scale.scale.astype(np.float32)
            made.quantization.zeroPoint = np.full(len(scale.scale), scale.zero, np.int64)
        self.tensors.append(made)
        self.types.append(dtype)
        return len(self.tensors) - 1

    def constant(self, name: str, values: np.ndarray, scale: Scale | None = None) -> int:
        """A tensor whose values are in the file; `scale` says what its integers stand for."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        made = self.computed(name, values.shape, values.dtype.name, scale)
        self.tensors[made].buffer = len(self.buffers) - 1
        return made

    def operator(self, kind: str, inputs: list[int], output: int, options: str = "", **fields: Any) -> int:
        """Add an operator with the `fields` of its options; returns its output."""
        key = kind, OPERATOR_VERSIONS.get((kind, self.types[inputs[0]]), 1)
        made = self.schema.OperatorT()
        made.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        made.inputs, made.outputs = inputs, [output]
        if options:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            for field, value in fields.items():
                setattr(made.builtinOptions, field, value)
        self.operators.append(made)
        return output

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        import flatbuffers

        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.name, graph.tensors, graph.operators = b"main", self.tensors, self.operators
        graph.inputs, graph.outputs = inputs, outputs
        model.version, model.subgraphs, model.buffers = VERSION, [graph], self.buffers
        model.operatorCodes = [self._code(*key) for key in self.codes]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, kind: str, version: int) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.version = getattr(self.schema.BuiltinOperator, kind), version
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # all that old readers look at
        return code


class TFLiteModel:
    """A TFLite file in LiteRT's interpreter, on this machine's CPU."""

    def __init__(self, content: bytes, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        self.content = content
        self.interpreter = Interpreter(model_content=content, num_threads=threads)
        self.input, self.output = self.interpreter.get_input_details()[0], self.interpreter.get_output_details()[0]
        self.shape: tuple[int, ...] = ()

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """{"raw": float32 (1, C, h, w)} -> the image (1, 3, H, W); a file of any size is resized to that input."""
        (raw,) = inputs.values()
        if raw.shape != self.shape:
            self.interpreter.resize_tensor_input(self.input["index"], raw.transpose(0, 2, 3, 1).shape, strict=True)
            self.interpreter.allocate_tensors()
            self.shape = raw.shape
        self.interpreter.set_tensor(self.input["index"], np.ascontiguousarray(raw.transpose(0, 2, 3, 1)))
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"]).transpose(0, 3, 1, 2)

    def operators(self) -> dict[str, int]:
        """How many operators of each kind the file has."""
        from ai_edge_litert import schema_py_generated as schema

        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        model = schema.ModelT.InitFromPackedBuf(self.content, 0)
        codes = [names[code.builtinCode] for code in model.operatorCodes]
        return dict(Counter(codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators))
