"""The network of raw-to-raw mapping: an encoder, and a head that predicts colour transforms (CSTPP).

Sections and equations here and in the modules that this one imports are those of *Generalizing ISP Model by
Unsupervised Raw-to-raw Mapping*.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import UserError
from models.batch_norms import DIRECTIONS, Average, synchronise
from models.encoders import ENCODERS, PATCH, WIDTH
from models.transforms import apply, terms

HEADS = ("patch", "pooled")
BAND = 2**18  # pixels that are transformed at once by `map_planes`


class Mapper(nn.Module):
    """Both generators: planes of one camera -> planes as the other camera would have taken them.

    Planes are (N, `channels`, H, W), black 0, white 1; four channels are R, Gr, Gb, B, three are R, G, B. The network
    predicts a polynomial in a pixel's channels for each patch of 16 x 16 pixels, and adds it to the planes. It looks at
    the planes downsampled by M = `downsample`, where a patch is 16M x 16M pixels of the planes themselves.
    It starts as the identity, or as what `start_from` is given. The directions share the encoder but for its batch
    normalisation.

    Args:
        channels: of the planes.
        head: "patch" predicts a transform for each patch; "pooled" one for the image, from the mean of the patches'
            vectors, as Chai et al. (2020) do.
        encoder: "conformer" or "plain" (models/encoders.py).

    Raises:
        UserError: unknown `head` or `encoder`.
    """

    def __init__(self, channels: int = 4, head: str = "patch", encoder: str = "conformer"):
        super().__init__()
        _check("head", head, HEADS)
        _check("encoder", encoder, ENCODERS)
        self.channels, self.pooled = channels, head == "pooled"
        self.encoder = ENCODERS[encoder](channels)
        self.heads = nn.ModuleDict({to: _head(channels * len(terms(channels))) for to in DIRECTIONS})
        for to in DIRECTIONS:
            self.register_buffer(f"start_{to}", torch.eye(channels))

    def start_from(self, to: str, matrix: Tensor) -> None:
        """Add the polynomial to a fixed matrix (C, C) times the planes, in the direction `to`, not to the planes.

        The network then corrects a linear map that is known already (data/raw_maps.py). The paper has none.
        """
        getattr(self, f"start_{to}").copy_(matrix)

    def _started(self, planes: Tensor, to: str) -> Tensor:
        """The planes times the fixed matrices of their directions."""
        parts = zip(planes.chunk(len(to)), to, strict=True)
        matrices = ((part, getattr(self, f"start_{one}").to(part.dtype)) for part, one in parts)
        return torch.cat([torch.einsum("dc,nchw->ndhw", matrix, part) for part, matrix in matrices])

    def forward(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """Planes (N, C, H, W) of the other camera -> planes as camera `to`, "a" or "b", takes them; not clipped.

        The planes may have equal parts with directions of their own, `to` "bbaa" for example, which are normalised as
        batches of their own. Raises `UserError` as `parameters_of`.
        """
        grid = self.parameters_of(planes, to, downsample)
        with torch.autocast(planes.device.type, enabled=False):  # bfloat16 has fewer digits than a mosaic
            return apply(self._started(planes, to), grid, PATCH * downsample)

    def parameters_of(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """The transforms of planes (N, C, H, W): (N, C x terms, h, w), h = ceil(H / 16M), or h = w = 1 if pooled.

        `models.transforms.apply` says how they are used. The planes are continued to the right and to the bottom by
        their last column and row, up to a multiple of 16M. They are downsampled by plain bilinear interpolation, as in
        the released code: unlike an average it leaves the noise nearly as strong as in the planes of the training.

        Raises:
            UserError: `to` is unknown; `downsample` is less than 1; the planes do not have the mapper's channels, or
                less than half a patch to a side (8M: then the centre of no patch lies in them); or, in training,
                the batch has a single patch, which cannot be normalised.
        """
        for one in to or ("",):
            _check("direction", one, DIRECTIONS)
        count, channels, height, width = planes.shape
        if downsample < 1:
            raise UserError(f"the mapper cannot downsample by {downsample}: give 1 or more")
        if channels != self.channels:
            raise UserError(f"the mapper takes planes of {self.channels} channels, and these have {channels}")
        patch = PATCH * downsample
        if min(height, width) < patch // 2:
            raise UserError(
                f"the mapper cannot see planes of {height}x{width} pixels when it downsamples them by {downsample}: "
                f"their sides must have at least {patch // 2}. Downsample less, or use larger images"
            )
        rows, columns = -(-height // patch), -(-width // patch)
        if self.training and count * rows * columns == len(to):
            raise UserError(
                f"one image of {height}x{width} pixels is a single patch, which batch normalisation cannot train on: "
                "use larger patches or batches"
            )
        planes = F.pad(planes, (0, columns * patch - width, 0, rows * patch - height), mode="replicate")
        if downsample > 1:
            planes = F.interpolate(planes, (rows * PATCH, columns * PATCH), mode="bilinear", align_corners=False)
        vectors = self.encoder(planes, to)
        if self.pooled:
            vectors = vectors.mean((1, 2), keepdim=True)
        with torch.autocast(planes.device.type, enabled=False):  # bfloat16 has too few digits for a colour transform
            vectors = vectors.to(self.heads["a"][0].weight.dtype)
            grids = [self.heads[one](part) for part, one in zip(vectors.chunk(len(to)), to, strict=True)]
        return torch.cat(grids).permute(0, 3, 1, 2)

    @torch.no_grad()
    def map_planes(self, planes: Tensor, to: str, downsample: int = 1) -> Tensor:
        """As `forward`, for use: in evaluation mode, without gradients, and in bands of rows, to save memory.

        Raises `UserError` as `parameters_of`.
        """
        training = self.training
        try:
            grid = self.eval().parameters_of(planes, to, downsample)
        finally:
            self.train(training)
        mapped, rows = torch.empty_like(planes), max(1, BAND // (planes.shape[0] * planes.shape[-1]))
        for top in range(0, planes.shape[-2], rows):
            band = self._started(planes[:, :, top : top + rows], to)
            mapped[:, :, top : top + rows] = apply(band, grid, PATCH * downsample, top)
        return mapped

    def synchronise(self, average: Average | None, processes: int) -> None:
        """Normalise batches by the statistics of so many processes in training; see `batch_norms.synchronise`."""
        synchronise(self, average, processes)


def _head(outputs: int) -> nn.Sequential:
    """CSTPP: a vector -> coefficients, all zero at first."""
    first, last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, outputs)
    nn.init.trunc_normal_(first.weight, std=0.02)
    for parameter in (first.bias, last.weight, last.bias):
        nn.init.zeros_(parameter)
    return nn.Sequential(first, nn.GELU(), last)


def _check(what: str, name: str, known: tuple[str, ...] | dict) -> None:
    if name not in known:
        raise UserError(f"unknown {what} '{name}' of the mapper; known are: {', '.join(known)}")
