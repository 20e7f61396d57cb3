"""A rendering of few parameters, fitted without pairs to statistics of images, each by how much it says.

Where the mosaics and the photographs show different scenes, their colours differ for that reason, too, and optimal
transport takes all of the difference for the camera's. Here a difference counts by how much it varies from image to
image: the mean brightness varies a lot, the brightest and darkest colours and the contrast vary less. What the images
do not say, a prior says: a sensor's white is about a photograph's, the mosaics are grey on average, and a matrix that
sharpens colours by a common amount. It is a maximum a posteriori estimate with Gaussian statistics and prior.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from errors import UserError

GAMMA = 2.2  # of camera colours (data.transport.camera_colors) and of photographs
SIDE = 32  # pixels: images are compared as thumbnails, so that noise and demosaicing do not matter
BRIGHTNESS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # quantiles of the mean of R, G and B
CHROMA = (0.1, 0.5, 0.9)  # quantiles of R - G and B - G
EXTREMES = (0.02, 0.98)  # quantiles of R, G and B
SHRINKAGE = 0.1  # of the statistics' correlations towards 0, as there may be few images
ROUNDS = 3  # of estimating the covariance of the statistics, and the rendering

# The parameters: gains of R, G and B in stops; six off-diagonal elements of the matrix; two of the tone curve.
SPREAD = torch.tensor([0.5] * 3 + [0.15] * 6 + [0.5] * 2, dtype=torch.float64)  # standard deviations of the prior
CENTRE = torch.tensor([0.0] * 3 + [-0.15] * 6 + [-0.3, 0.0], dtype=torch.float64)


def render(parameters: Tensor, colors: Tensor) -> Tensor:
    """Camera colours (..., 3) after a power of 1 / GAMMA -> sRGB (..., 3), not clipped.

    Gains, a matrix whose rows sum to 1, so that grey stays grey, the gamma, and a curve through black and white.
    """
    gains, (rg, rb, gr, gb, br, bg), (contrast, lift) = 2 ** parameters[:3], parameters[3:9], parameters[9:]
    rows = ((1 - rg - rb, rg, rb), (gr, 1 - gr - gb, gb), (br, bg, 1 - br - bg))
    matrix = torch.stack([torch.stack(row) for row in rows])
    image = ((colors**GAMMA * gains) @ matrix.T).clamp(min=1e-4) ** (1 / GAMMA)
    bump = image * (1 - image)
    return image + contrast * bump * (1 - 2 * image) + lift * bump


def thumbnail(image: Tensor) -> Tensor:
    """(1, 3, H, W) or (3, H, W) -> (SIDE, SIDE, 3)."""
    return F.interpolate(image.view(1, *image.shape[-3:]), (SIDE, SIDE), mode="area")[0].permute(1, 2, 0).cpu()


def fit_rendering(mosaics: Sequence[Tensor], photographs: Sequence[Tensor]) -> Tensor:
    """The parameters of `render` for thumbnails of camera colours and of photographs, (SIDE, SIDE, 3) each.

    In float64: in float32, the result would depend on the number of threads, and a run could not be resumed. Raises
    `UserError` if there is no estimate.
    """
    camera, shown = (torch.stack(list(images)).double().flatten(1, 2) for images in (mosaics, photographs))
    linear = (camera**GAMMA).mean((0, 1)).clamp(min=1e-6)
    centre = CENTRE.clone()
    centre[[0, 2]] += torch.log2(linear[1] / linear[[0, 2]])  # the mosaics are grey on average
    wanted = statistics(shown)
    parameters = centre.clone().requires_grad_()
    for _ in range(ROUNDS):
        with torch.no_grad():
            sides = wanted, statistics(render(parameters, camera))
        precision = torch.linalg.inv(sum(covariance_of_mean(side) for side in sides))
        _minimise(parameters, camera, wanted.mean(0), precision, centre)
    if not parameters.isfinite().all():
        raise UserError(
            "no rendering fits the statistics of the mosaics and photographs: are both of the kind that they should "
            "be? Use --data.color-map transport"
        )
    return parameters.detach()


def _minimise(parameters: Tensor, camera: Tensor, wanted: Tensor, precision: Tensor, centre: Tensor) -> None:
    """Minimise the negative logarithm of the posterior, in place."""
    optimizer = torch.optim.LBFGS([parameters], max_iter=15, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = statistics(render(parameters, camera)).mean(0) - wanted
        loss = error @ precision @ error + ((parameters - centre) / SPREAD).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def statistics(colors: Tensor) -> Tensor:
    """sRGB colours of images (N, P, 3) -> (N, S): quantiles of brightness, chroma and colours, and deviations."""
    colors = colors.clamp(-0.05, 1.05)
    red, green, blue = colors.unbind(2)
    chroma = torch.stack((red - green, blue - green), dim=2)
    brightness = colors.mean(2, keepdim=True)
    parts = _quantiles(brightness, BRIGHTNESS), _quantiles(chroma, CHROMA), _quantiles(colors, EXTREMES)
    return torch.cat((*parts, colors.std(1)), dim=1)


def _quantiles(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Of (N, P, C) over P: (N, levels * C)."""
    ordered, count = values.sort(1).values, values.shape[1]
    return ordered[:, [min(count - 1, int(level * count)) for level in levels]].flatten(1)


def covariance_of_mean(rows: Tensor) -> Tensor:
    """The covariance (S, S), float64, of the mean of statistics (N, S), with shrunk correlations."""
    covariance = torch.cov(rows.double().T)
    deviations = covariance.diagonal().clamp(min=1e-6).sqrt()
    outer = deviations[:, None] * deviations
    correlations = (1 - SHRINKAGE) * covariance / outer + SHRINKAGE * torch.eye(len(deviations), dtype=torch.float64)
    correlations.fill_diagonal_(1.0)
    return correlations * outer / independent(rows)


def independent(rows: Tensor) -> float:
    """How many independent images vary as little on average as these, whose statistics (N, S) are in order of name.

    Neighbours may be parts of one picture, or frames of one burst. Then means of batches of neighbours vary more than
    those of as many independent images (the method of batch means).
    """
    batch = max(1, int(len(rows) ** 0.5))
    means = rows[: len(rows) // batch * batch].unflatten(0, (-1, batch)).mean(1)
    if len(means) < 2:
        return float(len(rows))
    ratio = batch * means.var(0) / rows.var(0).clamp(min=1e-12)
    return len(rows) / max(1.0, float(ratio.median()))


def carry(parameters: Tensor, colors: np.ndarray) -> np.ndarray:
    """Where `render` carries camera colours (P, 3)."""
    with torch.no_grad():
        return render(parameters, torch.from_numpy(colors)).numpy()
