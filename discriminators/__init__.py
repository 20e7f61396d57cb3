"""The critics (discriminators) of Fig. 3: features (N, ...) -> logits (N,). tasks/modes.py says what each one sees."""

from discriminators.color import ColorDiscriminator
from discriminators.convolutional import ColorImageDiscriminator, TextureDiscriminator

__all__ = ["ColorDiscriminator", "ColorImageDiscriminator", "TextureDiscriminator"]
