"""The training step: what is computed for which image, the generator's gradient, and the critics' updates."""

import copy

import pytest
import torch
from torch import nn

from losses.adversarial import RelativisticLoss
from losses.content import ContentLoss
from losses.perceptual import MSELoss
from losses.total_variation import TotalVariation
from training.steps import Batch, Term

from ..fit_runs import same
from .small_trainer import CONTENT, MSE, TV, RecordingView, flat, flat_gradient, make_batch, make_trainer

# --- views and terms -------------------------------------------------------------------------------------------------


def test_each_view_is_computed_once_for_each_image_that_needs_it():
    content, texture, unused = RecordingView("content"), RecordingView("low", "high", seed=1), RecordingView("unused")
    trainer = make_trainer((TV, CONTENT, MSE), ("low", "high"), (content.view, texture.view, unused.view))
    batch = make_batch()
    generated = trainer.generator(batch.inputs).detach()
    trainer.step(batch, 1)
    assert same(content.images, [batch.reference, generated])
    assert same(texture.images, [batch.target, generated])
    assert not unused.images


def test_a_view_is_computed_for_reference_and_target_if_terms_compare_with_both():
    recording = RecordingView("content")
    against_target = Term("paired", 1.0, "content", "target", ContentLoss())
    make_trainer((CONTENT, against_target), views=(recording.view,)).step(make_batch(), 1)
    assert len(recording.images) == 3


def test_terms_of_the_image_need_no_view():
    recording = RecordingView("content")
    make_trainer((TV, MSE), views=(recording.view,)).step(make_batch(), 1)
    assert not recording.images


def test_terms_get_the_generated_image_and_the_one_they_compare_it_with():
    passed = {}

    def remember(name):
        return lambda *images: passed.setdefault(name, images)[0].square().mean()

    terms = [Term(a or "none", 1.0, "image", a, remember(a or "none")) for a in ("target", "reference", None)]
    trainer, batch = make_trainer(terms), make_batch()
    generated = trainer.generator(batch.inputs).detach()
    trainer.step(batch, 1)
    assert torch.equal(passed["target"][1], batch.target) and torch.equal(passed["reference"][1], batch.reference)
    assert len(passed["none"]) == 1 and all(torch.equal(images[0], generated) for images in passed.values())


def test_no_reference_is_needed_if_no_term_compares_with_it():
    trainer, batch = make_trainer((TV, MSE), ("low",), (RecordingView("low").view,)), make_batch()
    assert not trainer.compared_with("reference") and trainer.compared_with("target") == {"image"}
    trainer.step(Batch(batch.inputs, None, batch.target), 1)


# --- the generator ---------------------------------------------------------------------------------------------------


def test_generator_gradient_equals_that_of_each_loss_through_the_whole_graph():
    """Expected: each loss's gradient at the parameters, divided by its norm and times its weight, summed."""
    content, texture = RecordingView("content"), RecordingView("low", "high", seed=1)
    trainer = make_trainer((TV, CONTENT, MSE), ("low", "high"), (content.view, texture.view), weight=0.7)
    batch, generator = make_batch(), copy.deepcopy(trainer.generator)
    critics = {a.feature: copy.deepcopy(a.critic) for a in trainer.adversaries}

    def adversarial(feature, index):
        fake = texture.network(generator(batch.inputs)).tanh().split(4, 1)[index]
        real = texture.network(batch.target).tanh().split(4, 1)[index]
        return nn.functional.softplus(critics[feature](real) - critics[feature](fake)).mean()

    def content_of(image):
        return content.network(image).tanh()

    losses = {
        "tv": lambda: TotalVariation()(generator(batch.inputs)),
        "content": lambda: ContentLoss()(content_of(generator(batch.inputs)), content_of(batch.reference)),
        "mse": lambda: MSELoss()(generator(batch.inputs), batch.target),
        "adv_low": lambda: adversarial("low", 0),
        "adv_high": lambda: adversarial("high", 1),
    }
    expected, norms = torch.zeros(flat(generator).numel(), dtype=torch.float64), {}
    for (name, loss), weight in zip(losses.items(), (1.0, 0.5, 2.0, 0.7, 0.7), strict=True):
        alone = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), list(generator.parameters()))])
        norms[name] = alone.norm()
        expected += weight * alone / (norms[name] + 1e-8)

    statistics = trainer.step(batch, 1)
    actual = flat_gradient(trainer.generator)
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(flat(trainer.generator), flat(generator) - actual)  # SGD with a rate of 1
    for name, loss in losses.items():
        torch.testing.assert_close(statistics[f"loss/{name}"], loss().detach())
        torch.testing.assert_close(statistics[f"norm/{name}"], norms[name])


def test_a_term_of_weight_zero_has_no_effect():
    zero = Term("zero", 0.0, "image", "reference", MSELoss())
    without, with_zero = make_trainer((TV, MSE)), make_trainer((TV, zero, MSE))
    without.step(make_batch(), 1)
    with_zero.step(make_batch(), 1)
    torch.testing.assert_close(flat(with_zero.generator), flat(without.generator))


def test_statistics_are_detached_and_named():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,))
    statistics = trainer.step(make_batch(), 1)
    critic = [f"critic/adv_low/{key}" for key in ("loss", "gap", "r1", "r2")]
    assert set(statistics) >= {"loss/tv", "norm/tv", "loss/adv_low", "norm/adv_low", *critic}
    assert not any(value.requires_grad for value in statistics.values())


# --- the critics -----------------------------------------------------------------------------------------------------


def test_critics_are_trained_on_the_detached_features_of_the_generator_s_step():
    texture = RecordingView("low")
    trainer, batch = make_trainer((TV,), ("low",), (texture.view,)), make_batch()
    before, critic = copy.deepcopy(trainer.generator), trainer.adversaries[0].critic
    expected = copy.deepcopy(critic)
    trainer.step(batch, 1)
    ((fake, real),) = trainer.adversarial.features
    # The image is the one from before the generator's update: it is not generated again.
    torch.testing.assert_close(fake.detach(), texture.network(before(batch.inputs)).tanh().detach())
    loss, _ = RelativisticLoss(10).discriminator(expected, fake.detach(), real.detach())
    loss.backward()
    nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
    torch.testing.assert_close(flat_gradient(critic), flat_gradient(expected))


def test_updating_the_critics_does_not_change_the_generator_s_gradient():
    view = RecordingView("low").view
    updated = make_trainer((TV,), ("low",), (view,))
    not_updated = make_trainer((TV,), ("low",), (view,), every=(100,))
    for trainer in (updated, not_updated):
        trainer.step(make_batch(), 1)
    assert torch.equal(flat_gradient(updated.generator), flat_gradient(not_updated.generator))


def test_updating_the_generator_does_not_change_the_critics():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), every=(100,))
    before = flat(trainer.adversaries[0].critic)
    trainer.step(make_batch(), 1)
    assert torch.equal(flat(trainer.adversaries[0].critic), before)
    assert all(p.grad is None for p in trainer.adversaries[0].critic.parameters())


def test_a_critic_is_updated_at_every_so_many_steps():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), every=(3,))
    updated = []
    for number in range(1, 8):
        before = flat(trainer.adversaries[0].critic)
        statistics = trainer.step(make_batch(number), number)
        updated.append(not torch.equal(flat(trainer.adversaries[0].critic), before))
        assert ("critic/adv_low/loss" in statistics) == updated[-1]
    assert updated == [False, False, True, False, False, True, False]


def test_only_critics_are_trained_while_they_warm_up():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), warmup=2)
    changed = []
    for number in (1, 2, 3):
        before = [flat(network) for network in (trainer.generator, trainer.adversaries[0].critic)]
        statistics = trainer.step(make_batch(number), number)
        after = [flat(network) for network in (trainer.generator, trainer.adversaries[0].critic)]
        changed.append([not torch.equal(a, b) for a, b in zip(after, before, strict=True)])
        assert ("norm/tv" in statistics) == (number == 3) and "loss/tv" in statistics
    assert changed == [[False, True], [False, True], [True, True]]


@pytest.mark.parametrize("clip_norm", (0.01, 1e9))
def test_each_critic_s_gradient_is_clipped_separately(clip_norm):
    view = RecordingView("low", "high").view
    trainer = make_trainer((TV,), ("low", "high"), (view,), gamma=1e5, clip_norm=clip_norm)
    before = [flat(a.critic) for a in trainer.adversaries]
    trainer.step(make_batch(), 1)
    norms = [(flat(a.critic) - b).norm().item() for a, b in zip(trainer.adversaries, before, strict=True)]
    if clip_norm == 0.01:
        assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
    else:
        assert min(norms) > 0.01


def test_critics_gradients_do_not_accumulate_over_steps():
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), clip_norm=1e9, lr=0.1)
    trainer.step(make_batch(), 1)
    expected = copy.deepcopy(trainer.adversaries[0].critic)
    expected.zero_grad()
    trainer.step(make_batch(1), 2)
    fake, real = (features.detach() for features in trainer.adversarial.features[1])
    RelativisticLoss(10).discriminator(expected, fake, real)[0].backward()
    torch.testing.assert_close(flat_gradient(trainer.adversaries[0].critic), flat_gradient(expected))


def test_critics_with_steps_of_their_own_are_updated_at_those():
    view = RecordingView("low", "high").view
    trainer, updated = make_trainer((TV,), ("low", "high"), (view,), every=(2, 3)), []
    for number in range(1, 7):
        before = [flat(a.critic) for a in trainer.adversaries]
        statistics = trainer.step(make_batch(number), number)
        changed = [not torch.equal(flat(a.critic), b) for a, b in zip(trainer.adversaries, before, strict=True)]
        assert [f"critic/{a.name}/loss" in statistics for a in trainer.adversaries] == changed
        updated.append(tuple(changed))
    assert updated == [(False, False), (True, False), (False, True), (True, False), (False, False), (True, True)]


# --- ways of the released code ---------------------------------------------------------------------------------------


def test_gradients_of_targets_change_nothing_but_the_work():
    options = {"terms": (TV, CONTENT, MSE), "features": ("low",), "lr": 0.1}
    plain, with_gradients = (
        make_trainer(
            **options, views=(RecordingView("content").view, RecordingView("low", seed=1).view), target_gradients=on
        )
        for on in (False, True)
    )
    for number in (1, 2):
        for trainer in (plain, with_gradients):
            trainer.step(make_batch(number), number)
    assert torch.equal(flat(plain.generator), flat(with_gradients.generator))
    assert torch.equal(flat(plain.adversaries[0].critic), flat(with_gradients.adversaries[0].critic))


@pytest.mark.parametrize("target_gradients", (False, True))
def test_the_features_of_targets_have_a_graph_only_if_asked(target_gradients):
    seen = []
    against = Term("seen", 1.0, "content", "target", lambda a, b: seen.append(b.requires_grad) or (a - b).sum())
    trainer = make_trainer((against,), views=(RecordingView("content").view,), target_gradients=target_gradients)
    trainer.step(make_batch(), 1)
    assert seen == [target_gradients]


def test_the_gradient_of_an_untrained_layer_is_never_zeroed_and_counts_in_the_clipped_norm():
    """As the released code: three backward passes of the generator's loss, one of them unscaled, and the critic's."""
    view, batch, clip = RecordingView("low"), make_batch(), 1e-3
    trainer = make_trainer(
        (TV,), ("low",), (view.view,), untrained="line", lr=0.1, weight=0.7, clip_norm=clip, every=(2,)
    )
    critic, optimizer = copy.deepcopy(trainer.adversaries[0].critic), None
    critic.zero_grad()
    optimizer = torch.optim.SGD(critic.conv.parameters(), 0.1)
    line, generator = critic.line.weight.clone(), copy.deepcopy(trainer.generator)
    generator_optimizer = torch.optim.SGD(generator.parameters(), 0.1)
    for number in (1, 2, 3, 4):
        trainer.step(batch, number)
        image = generator(batch.inputs)
        real, fake = view.network(batch.target).tanh(), view.network(image).tanh()
        loss = nn.functional.softplus(critic(real) - critic(fake)).mean()
        parameters = list(generator.parameters())
        tv = torch.autograd.grad(TotalVariation()(image), parameters, retain_graph=True)
        own = torch.autograd.grad(loss, parameters, retain_graph=True)
        scales = [w / (torch.cat([g.flatten() for g in gs]).norm() + 1e-8) for w, gs in ((1.0, tv), (0.7, own))]
        loss.backward(retain_graph=True)  # for its norm
        (scales[1] * loss).backward(retain_graph=True)  # for the log
        (scales[1] * loss).backward()  # in the sum
        for p, a, b in zip(parameters, tv, own, strict=True):
            p.grad = scales[0] * a + scales[1] * b
        generator_optimizer.step()
        if number % 2 == 0:
            optimizer.zero_grad()
            RelativisticLoss(10).discriminator(critic, fake.detach(), real.detach())[0].backward()
            nn.utils.clip_grad_norm_(critic.parameters(), clip)
            optimizer.step()
    trained = trainer.adversaries[0].critic
    torch.testing.assert_close(flat(trained), flat(critic))
    torch.testing.assert_close(trained.line.weight.grad, critic.line.weight.grad)
    assert torch.equal(trained.line.weight, line)


def test_gradients_that_nobody_zeroes_are_averaged_over_the_processes():
    """So that the state that the main process saves is that of all."""
    trainer = make_trainer((TV,), ("low",), (RecordingView("low").view,), untrained="line", every=(100,))
    (unzeroed,) = trainer.unzeroed.values()
    trainer.step(make_batch(), 1)
    assert unzeroed.parameters[0].grad.any()
    before = [p.grad.clone() for p in unzeroed.parameters]
    trainer.average_ = torch.zeros_like
    trainer.step(make_batch(), 2)
    assert same([p.grad for p in unzeroed.parameters], before)
