"""The critics (discriminators).

Those of Fig. 3: features (N, ...) -> logits (N,). tasks/modes.py says what each one sees. The one of raw-to-raw mapping
returns a map of logits (N, h, w).
"""

from discriminators.color import ColorDiscriminator
from discriminators.convolutional import ColorImageDiscriminator, TextureDiscriminator
from discriminators.patch import PatchDiscriminator

__all__ = ["ColorDiscriminator", "ColorImageDiscriminator", "PatchDiscriminator", "TextureDiscriminator"]
