"""The critics (discriminators) of Fig. 3. Each maps features (N, ...) to logits (N,)."""

from discriminators.color import ColorDiscriminator
from discriminators.texture import TextureDiscriminator

__all__ = ["ColorDiscriminator", "TextureDiscriminator"]
