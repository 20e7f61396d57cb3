"""Masked steps: what each objective is shown, where gradients are zero, and how means are taken."""

from dataclasses import replace

import pytest
import torch

from losses.color import BlurredColorLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss
from training.masks import Aligned
from training.steps import Term

from ..fit_runs import same
from .small_trainer import CONTENT, MSE, TV, RecordingView, flat, make_batch, make_trainer

COLOR = Term("color", 1.0, "image", "target", BlurredColorLoss())
PAIRED = Term("paired", 1.0, "content", "target", ContentLoss())  # on the features of "content"


def make_mask() -> torch.Tensor:
    """(2, 1, 8, 8): of the first image, a corner is not aligned; of the second, all but one row."""
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[0, :, :3, :5] = mask[1, :, :4] = mask[1, :, 5:] = False
    return mask


def image_gradients(trainer, batch):
    image = trainer.generator(batch.inputs).detach().requires_grad_()
    real = trainer.features(batch.target, {a.feature for a in trainer.adversaries} | trainer.compared_with("target"))
    reference = trainer.features(batch.reference, trainer.compared_with("reference"))
    aligned = None if batch.mask is None else Aligned(batch.target, batch.mask)
    return image.detach(), *trainer.image_gradients(image, real, reference, aligned)


def test_gradients_of_comparisons_with_targets_are_zero_outside_the_mask_alone():
    """Also those of blurred images and of features, which see further than a pixel."""
    views = RecordingView("content").view, RecordingView("low", seed=1).view
    trainer = make_trainer((TV, CONTENT, MSE, COLOR, PAIRED), ("low",), views)
    mask = make_mask()
    _, losses, gradients, _ = image_gradients(trainer, replace(make_batch(), mask=mask))
    outside = ~mask.expand(-1, 3, -1, -1)
    for name in ("mse", "color", "paired"):
        assert not gradients[name][outside].any() and gradients[name][~outside].all() and losses[f"loss/{name}"] > 0
    for name in ("tv", "content", "adv_low"):  # these need no aligned target
        assert gradients[name][outside].all()


def test_features_are_computed_of_the_pasted_image_for_terms_and_of_the_whole_one_for_critics():
    recording = RecordingView("content")
    trainer, mask = make_trainer((CONTENT, PAIRED), ("content",), (recording.view,)), make_mask()
    batch = replace(make_batch(), mask=mask)
    image, _, _, fake = image_gradients(trainer, batch)
    pasted = image * mask + batch.target * ~mask
    assert same(recording.images, [batch.target, batch.reference, pasted, image])
    assert torch.equal(fake["content"], recording.view.compute(image)[0])


def test_the_mean_squared_error_is_that_of_the_aligned_pixels():
    trainer, mask = make_trainer((MSE,)), make_mask()
    batch = replace(make_batch(), mask=mask)
    image, losses, gradients, _ = image_gradients(trainer, batch)
    chosen = mask.expand(-1, 3, -1, -1)
    difference = image[chosen] - batch.target[chosen]
    torch.testing.assert_close(losses["loss/mse"], difference.square().mean())
    torch.testing.assert_close(gradients["mse"][chosen], 2 * difference / difference.numel())


def test_what_the_target_shows_outside_the_mask_does_not_matter_to_pixels():
    mask, results = make_mask(), []
    for level in (0.0, 1.0):
        trainer, batch = make_trainer((TV, MSE, COLOR)), make_batch()
        target = torch.where(mask, batch.target, level)
        results.append((trainer.step(replace(batch, target=target, mask=mask), 1), flat(trainer.generator)))
    assert same(*results)


def test_a_mask_of_ones_changes_no_bit():
    results = []
    for mask in (None, torch.ones(2, 1, 8, 8, dtype=torch.bool)):
        views = RecordingView("content").view, RecordingView("low", seed=1).view
        trainer = make_trainer((TV, CONTENT, MSE, COLOR, PAIRED), ("low",), views, torch.optim.Adam, lr=0.01)
        statistics = [trainer.step(replace(make_batch(number), mask=mask), number) for number in (1, 2, 3)]
        results.append((statistics, trainer.state()))
    assert same(*results)


def test_a_batch_without_aligned_pixels_trains_the_other_terms_alone():
    masked, alone = make_trainer((TV, MSE)), make_trainer((TV,))
    nowhere = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    statistics = masked.step(replace(make_batch(), mask=nowhere), 1)
    alone.step(make_batch(), 1)
    assert statistics["loss/mse"] == 0 and torch.equal(flat(masked.generator), flat(alone.generator))


@pytest.mark.parametrize("term", (MSE, Term("content", 1.0, "image", "target", ContentLoss())))
def test_processes_that_share_a_batch_have_the_gradient_of_the_whole(term):
    """ContentLoss sums over the batch, so it is the sum of the processes'; MSELoss is a mean."""
    batch, mask = make_batch(), make_mask()
    whole = image_gradients(make_trainer((term,)), replace(batch, mask=mask))[2][term.name]
    parts, trainer = [], make_trainer((term,))
    for one in (slice(0, 1), slice(1, 2)):
        aligned = Aligned(batch.target[one], mask[one], lambda share: mask.float().mean())
        image = trainer.generator(batch.inputs[one]).detach().requires_grad_()
        real = trainer.features(batch.target[one], {"image"})
        parts.append(trainer.image_gradients(image, real, {}, aligned)[1][term.name])
    torch.testing.assert_close(torch.cat(parts) / (2 if term is MSE else 1), whole)


def test_the_share_of_all_processes_is_asked_for_in_a_step():
    trainer, mask, asked = make_trainer((MSE,)), make_mask(), []
    trainer.average_ = lambda tensor: asked.append(tensor.clone()) or tensor
    trainer.step(replace(make_batch(), mask=mask), 1)
    assert asked[0] == mask.float().mean()


def test_losses_that_are_nan_outside_the_mask_do_not_spread():
    batch, mask = make_batch(), make_mask()
    image = torch.where(mask, make_batch(1).target, float("nan")).requires_grad_()
    MSELoss()(Aligned(batch.target, mask).paste(image), batch.target).backward()
    assert image.grad.isfinite().all()
