"""Score the pairs of images.py with TensorFlow and write the numbers to tensorflow.json.

The tests read the numbers and need no TensorFlow. To make them again, when the pairs have changed:

    python -m venv tf && tf/bin/pip install tensorflow-cpu scikit-image
    tf/bin/python tests/golden/make_tensorflow.py

`single` is what TensorFlow says. Its single precision costs up to 1e-4 on photographs and 3e-4 on flat images, and is
not the same in each of its builds. `double` is the same code in double precision.
"""

import json
import zlib
from pathlib import Path
from unittest import mock

import tensorflow as tf
from images import Image, pairs
from tensorflow.python.ops import image_ops_impl


def main() -> None:
    scores = {name: score(*pair) for name, pair in pairs().items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in scores.items())
    text = f'{{\n "tensorflow": "{tf.__version__}",\n "pairs": {{\n{lines}\n }}\n}}\n'
    Path(__file__).with_name("tensorflow.json").write_text(text)


def score(image: Image, target: Image) -> dict:
    """Both precisions, and a checksum of what was compared."""
    single = measure(image, target)
    with mock.patch.object(image_ops_impl, "convert_image_dtype", in_double):
        double = measure(image, target)
    return {"crc32": zlib.crc32(image.tobytes() + target.tobytes()), "single": single, "double": double}


def measure(image: Image, target: Image) -> dict[str, float | None]:
    """`ms_ssim` is None where TensorFlow refuses, for want of pixels."""
    ssim = tf.image.ssim(image[None], target[None], max_val=255).numpy().item()
    try:
        ms_ssim = tf.image.ssim_multiscale(image[None], target[None], max_val=255).numpy().item()
    except tf.errors.InvalidArgumentError:
        ms_ssim = None
    return {"ssim": ssim, "ms_ssim": ms_ssim}


def in_double(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """uint8 in 0..255 -> [0, 1], in float64 whatever `dtype` was asked for."""
    return tf.cast(image, tf.float64) / 255


if __name__ == "__main__":
    main()
