"""Mistakes end a run of fit.py with a message, and leave existing files as they are."""

from pathlib import Path

import pytest

import fit
import storage
from errors import UserError
from losses.adversarial import RelativisticLoss
from losses.total_variation import TotalVariation
from tasks import isp
from training.folder import claim_folder

from .fit_runs import CHEAP, vary, write_scenes

pytestmark = pytest.mark.usefixtures("restored", "cached_networks")

# --- settings that do not fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts, message",
    (
        ({"data": {"root": "/absent"}}, "no folder /absent/train"),
        ({"data": {"unpaired": "mixed"}}, "unknown unpaired mode 'mixed'.*shuffled, disjoint"),
        ({"data": {"layout": "folders"}}, "--data.raw and --data.photos"),
        ({"data": {"layout": "sony"}}, "unknown dataset layout 'sony'; known are: zrr"),
        ({"data": {"demosaic": "malvar"}}, "unknown demosaicing 'malvar'; known are: menon2007, bilinear"),
        ({"data": {"patch": 128}}, "64x64, smaller than a patch of 128"),
        ({"model": "resnet"}, "unknown model 'resnet'; known are: efficient"),
        ({"device": "quantum"}, "device 'quantum' cannot be used"),
        ({"init": "absent.pt"}, "no file absent.pt"),
        ({"train": {"mode": "both"}}, "unknown mode 'both'; known are: unpaired, paired, paired_gan"),
        ({"train": CHEAP | {"adv_color": 0, "tv": 0}}, "no term left"),
    ),
)
def test_a_mistake_in_the_settings_ends_with_a_message(cheap_config, parts, message):
    with pytest.raises(UserError, match=message):
        fit.train(vary(cheap_config, **parts))


@pytest.mark.parametrize("mode", ("paired", "paired_gan"))
def test_paired_modes_refuse_folders_without_pairs(cheap_config, fit_dataset, mode):
    apart = fit_dataset / "apart"
    data = {"layout": "folders", "root": "", "raw": str(apart / "raws"), "photos": str(apart / "photos")}
    with pytest.raises(UserError, match=f"mode '{mode}' needs pairs"):
        fit.train(vary(cheap_config, data=data, train={"mode": mode}))


def test_pretraining_without_a_term_is_refused(cheap_config):
    with pytest.raises(UserError, match="every weight of pretrain is 0"):
        fit.train(vary(cheap_config, pretrain={"content": 0, "mse": 0, "tv": 0}))


def test_an_initial_checkpoint_of_another_model_is_refused(cheap_config):
    path = fit.train(cheap_config) / "checkpoints" / "pretrained.pt"
    with pytest.raises(UserError, match="holds the model 'efficient', not 'robust'"):
        fit.train(vary(cheap_config, run="next", model="robust", init=str(path)))


@pytest.mark.parametrize("side", ("raws", "photos"))
def test_a_patch_that_is_too_large_is_refused_before_any_fit_and_leaves_the_folder_free(
    cheap_config, tmp_path, monkeypatch, side
):
    write_scenes(tmp_path / "large" / "raws", tmp_path / "large" / "photos", range(4), range(10, 14), side=128)
    write_scenes(tmp_path / "small" / "raws", tmp_path / "small" / "photos", range(4), range(10, 14))
    folders = {name: str(tmp_path / ("small" if name == side else "large") / name) for name in ("raws", "photos")}
    data = {"layout": "folders", "root": "", "raw": folders["raws"], "photos": folders["photos"], "patch": 96}
    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"{folders[side]}.*64x64, smaller than a pa"):
        patch.setattr(isp, "fit_reference", None)
        fit.train(vary(cheap_config, data=data))
    assert {path.name for path in Path(cheap_config.runs, cheap_config.run).iterdir()} == {".lock"}
    assert (fit.train(vary(cheap_config, data=data | {"patch": 64})) / "summary.json").exists()


def test_mosaics_may_be_small_if_only_photographs_are_drawn(cheap_config, tmp_path):
    """Synthetic pairs are made of the photographs."""
    write_scenes(tmp_path / "large" / "raws", tmp_path / "photos", range(12), range(20, 32), side=128)
    write_scenes(tmp_path / "raws", tmp_path / "small", range(12))
    data = {"layout": "folders", "root": "", "raw": str(tmp_path / "raws"), "photos": str(tmp_path / "photos")}
    config = vary(cheap_config, data=data | {"patch": 96}, pretrain={"data": "synthetic", "content": 0})
    folder = fit.train(vary(config, train={"steps": 0}))
    assert (folder / "summary.json").exists()
    with pytest.raises(UserError, match="raws.*64x64, smaller than a patch of 96"):
        fit.train(vary(config, run="both"))


def test_an_unusable_device_leaves_no_folder(cheap_config, tmp_path):
    with pytest.raises(UserError):
        fit.train(vary(cheap_config, device="quantum"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "parts", ({"model": "x"}, {"train": {"mode": "x"}}, {"data": {"layout": "x"}}, {"data": {"demosaic": "x"}})
)
def test_an_unknown_name_leaves_no_folder_and_no_demo(cheap_config, tmp_path, parts):
    config = vary(vary(cheap_config, data={"demo": True, "root": str(tmp_path / "demo")}), **parts)
    with pytest.raises(UserError, match="unknown .* 'x'; known are: "):
        fit.train(config)
    assert not Path(config.runs, config.run).exists() and not (tmp_path / "demo").exists()


# --- existing runs ---------------------------------------------------------------------------------------------------


def test_an_existing_run_is_not_overwritten(cheap_config):
    folder = fit.train(cheap_config)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="tiny exists.*--resume.*--run"):
        fit.train(cheap_config)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_that_another_process_trains_is_refused(cheap_config, tmp_path):
    claim = claim_folder(tmp_path / "runs" / "tiny", resume=False)
    with claim, pytest.raises(UserError, match="another process is training"):
        fit.train(cheap_config, resume=True)


def test_a_damaged_state_is_refused(cheap_config):
    folder = fit.train(cheap_config)
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match="last.pt is not a readable checkpoint"):
        fit.train(cheap_config, resume=True)


def test_the_state_of_another_config_is_refused(cheap_config):
    fit.train(cheap_config)
    with pytest.raises(UserError, match="a resumed run cannot change model: .*was efficient and is robust"):
        fit.train(vary(cheap_config, model="robust"), resume=True)


# --- diverging training ----------------------------------------------------------------------------------------------


def test_a_loss_that_is_nan_ends_the_run_and_leaves_the_last_state(cheap_config, monkeypatch):
    calls, plain = [], TotalVariation.__call__

    def broken(self, image):
        calls.append(1)
        return plain(self, image) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(TotalVariation, "__call__", broken)
    run = fit.build_run(vary(cheap_config, train={"steps": 5}), resume=False)
    with pytest.raises(UserError, match="loss/tv is nan at step 2 of train.*untouched"):
        run.train()
    state = storage.load(run.folder / "last.pt")
    assert (state["stage"], state["step"]) == (1, 1)
    assert all(value.isfinite().all() for value in state["trainer"]["generator"].values())
    assert not (run.folder / "checkpoints" / "step_0000002.pt").exists()


def test_a_critic_with_nan_weights_is_not_saved(cheap_config, monkeypatch):
    """Its loss is finite, but the gradient is not: the update makes its parameters NaN."""
    plain = RelativisticLoss.discriminator

    def broken(self, critic, fake, real):
        loss, statistics = plain(self, critic, fake, real)
        parameter = next(critic.parameters())
        return loss + (parameter - parameter.detach()).sqrt().sum(), statistics

    monkeypatch.setattr(RelativisticLoss, "discriminator", broken)
    run = fit.build_run(cheap_config, resume=False)
    with pytest.raises(UserError, match="a weight is not finite at step 1 of train: training has diverged"):
        run.train()
    state = storage.load(run.folder / "last.pt")["trainer"]
    critics = [value for name in state if name.startswith("critic/") for value in state[name].values()]
    assert all(value.isfinite().all() for value in critics)
