"""A network that is trained in one form and used in a smaller one."""

import torch

from data.inputs import prepare
from data.sensor import SENSORS
from evaluation.metrics import to_8_bit
from models import build_model
from pretrained.zoo import open_generator
from tasks.model import open_model
from training.checkpoint import save_generator

SENSOR = SENSORS["fujifilm"]


def test_a_trained_checkpoint_is_opened_in_the_form_for_use(tmp_path):
    torch.manual_seed(0)
    network = build_model("syenet")
    with torch.no_grad():
        network(torch.rand(2, 4, 8, 8))  # statistics of a batch
    save_generator(tmp_path / "syenet.pt", network, 1, {"model": "syenet"})
    model = open_model(str(tmp_path / "syenet.pt"), torch.device("cpu"))
    assert model.name == "syenet" and sum(p.numel() for p in model.generator.parameters()) == 5_640
    assert not any(p.requires_grad for p in model.generator.parameters()) and not model.generator.training
    mosaic = torch.rand(1, 1, 18, 14)
    with torch.no_grad():
        expected = to_8_bit(network.eval()(prepare(mosaic, SENSOR, "rggb_4095")))
    assert (model.develop(mosaic, SENSOR).int() - expected.int()).abs().max() <= 1  # truncated: rounding can show
    name, state = open_generator(str(tmp_path / "syenet.pt"))  # from which training starts (--init)
    assert name == "syenet" and state.keys() == network.state_dict().keys()
