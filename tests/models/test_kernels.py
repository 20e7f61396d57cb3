"""The ISP of kernels for each pixel: its formula, its start, its reach, its memory."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from data.inputs import prepare
from data.reference import bilinear_opencv
from data.sensor import Sensor
from models import MODELS, build_model
from models.kernels import KernelISP, bilinear_taps, reach_of

SENSOR = Sensor("rggb", (0.0,) * 4, 1023.0)


def random_isp(widths=(3, 4), window=3, seed=0) -> KernelISP:
    """In double precision, with kernels that depend on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        isp = KernelISP(widths, window).double()
        torch.nn.init.normal_(isp.kernels.weight, std=0.3)
        torch.nn.init.normal_(isp.bias)
    return isp


def random_mosaic(height: int, width: int, seed: int = 0) -> Tensor:
    numbers = torch.randint(0, 1024, (1, 1, height, width), generator=torch.Generator().manual_seed(seed))
    return numbers.double()


def dense(isp: KernelISP, packed: Tensor) -> Tensor:
    """The formula, pixel by pixel."""
    count, _, height, width = packed.shape
    side, r = isp.window, isp.window // 2
    kernels = isp.kernels(isp.features(packed)).view(count, side, side, 4, 12, height, width)
    rows = []
    for y in range(height):
        for x in range(width):
            value = isp.bias.expand(count, -1)
            for j in range(side):
                for i in range(side):
                    at = packed[:, :, min(max(y + j - r, 0), height - 1), min(max(x + i - r, 0), width - 1)]
                    value = value + torch.einsum("ncv,nc->nv", kernels[:, j, i, :, :, y, x], at)
            rows.append(value)
    return F.pixel_shuffle(torch.stack(rows, -1).view(count, 12, height, width), 2)


@pytest.mark.parametrize("name, count", (("per-pixel-kernels", 1_961_404), ("per-pixel-kernels-small", 33_724)))
def test_parameter_counts(name, count):
    assert sum(p.numel() for p in build_model(name).parameters()) == count


@pytest.mark.parametrize("window", (3, 5))
def test_outputs_and_gradients_are_those_of_the_formula(window):
    isp, packed = random_isp(window=window), torch.rand(2, 4, 4, 6, dtype=torch.float64, requires_grad=True)
    fast, slow = isp(packed), dense(isp, packed)
    torch.testing.assert_close(fast, slow)
    at_image = torch.rand_like(slow)
    wanted = [packed, *isp.parameters()]
    gradients = [torch.autograd.grad(image, wanted, at_image) for image in (fast, slow)]
    torch.testing.assert_close(*gradients)


def test_gradients_are_those_of_finite_differences():
    isp, packed = random_isp(widths=(2, 2)), torch.rand(1, 4, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(isp, packed)


def demosaiced(mosaic: Tensor) -> Tensor:
    """Bilinear demosaicing of an RGGB mosaic that is mirrored at its border."""
    straight = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).double() / 4
    cross = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]).double() / 4
    colors = []
    for sites, kernel in (([(0, 0)], straight), ([(0, 1), (1, 0)], cross), ([(1, 1)], straight)):
        plane = torch.zeros_like(mosaic)
        for row, column in sites:
            plane[..., row::2, column::2] = mosaic[..., row::2, column::2]
        colors.append(F.conv2d(F.pad(plane, (1, 1, 1, 1), mode="reflect"), kernel[None, None]))
    return torch.cat(colors, 1)


@pytest.mark.parametrize("window", (3, 5))
@pytest.mark.parametrize("size", ((10, 12), (14, 26)))
def test_it_starts_at_bilinear_demosaicing(window, size):
    mosaic = random_mosaic(*size)
    isp = KernelISP((3, 4, 4, 4), window).double()
    image = isp(prepare(mosaic / 1023, SENSOR, "packed")) * 1023
    torch.testing.assert_close(image, demosaiced(mosaic), rtol=0, atol=1e-4)  # the input has float32's black level


def test_the_start_inside_the_image_is_opencv_s():
    mosaic = random_mosaic(16, 20)
    image = KernelISP((2,)).double()(prepare(mosaic / 1023, SENSOR, "packed")) * 1023
    difference = (image - bilinear_opencv(mosaic)).abs()[..., 1:-1, 1:-1]
    assert difference.max() <= 0.5 + 1e-6  # OpenCV rounds


def test_the_taps_of_green_at_the_red_pixel():
    """A quarter of the Gr (plane 1) here and to the left, and of the Gb (plane 3) here and above."""
    taps = bilinear_taps(3)[..., 4]  # green, row 0, column 0
    expected = torch.zeros(3, 3, 4)
    expected[1, 1, 1] = expected[1, 0, 1] = expected[1, 1, 3] = expected[0, 1, 3] = 0.25
    assert torch.equal(taps, expected)
    assert torch.equal(bilinear_taps(5).sum((0, 1, 2)), torch.ones(12))


@pytest.mark.parametrize("levels", (1, 2, 3))
def test_reach_is_how_far_the_furthest_pixel_lies(levels):
    isp, cells = random_isp((2,) * levels, seed=1), 64
    furthest = 0
    for cell in range(24, 24 + 2 ** (levels - 1)):  # all places in the grid of the smallest level
        packed = torch.rand(1, 4, cells, cells, dtype=torch.float64, requires_grad=True)
        isp(packed)[..., 2 * cell : 2 * cell + 2, 64:66].sum().backward()
        rows = packed.grad.abs().amax((0, 1, 3)).nonzero().flatten()
        furthest = max(furthest, cell - int(rows.min()), int(rows.max()) - cell)
    assert 2 * furthest == reach_of(levels)


def test_the_rows_of_models_agree_with_the_networks():
    for name in ("per-pixel-kernels", "per-pixel-kernels-small"):
        spec, levels = MODELS[name], len(build_model(name).features.down)
        assert spec.multiple == 2 * build_model(name).multiple == 2**levels
        assert spec.reach == reach_of(levels)
        side = spec.minimum // 2
        assert build_model(name)(torch.rand(1, 4, side, side)).shape == (1, 3, 2 * side, 2 * side)


def test_no_kernels_are_kept_for_the_gradient():
    """Nothing that is kept is as large as the kernels of a single neighbour, 48 numbers a packed pixel."""
    isp, packed, kept = KernelISP((8,)), torch.rand(1, 4, 32, 32), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        isp(packed).sum()
    assert 0 < max(kept) < 48 * 4 * 32 * 32


def test_gradients_reach_every_parameter_after_the_first_step():
    isp = random_isp()
    isp(torch.rand(1, 4, 8, 8, dtype=torch.float64)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in isp.parameters())
