"""The colour critic: section 3.4, Fig. 3."""

from torch import Tensor, nn


class ColorDiscriminator(nn.Module):
    """A three-layer MLP on each ViT token, averaged over the tokens: (N, tokens, `width`) -> logits (N,)."""

    def __init__(self, width: int = 768, hidden: int = 512):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens).mean((1, 2))
