"""A training step of the mapper for test_batch_norms.py, in float64: in this process, or as a script under torchrun."""

import sys

import torch
from torch.distributed.nn.functional import all_reduce

from losses.balance import parameter_gradients
from models.batch_norms import synchronise
from models.mapper import Mapper
from models.syenet import SYENet
from training.distributed import ALONE, Group, join, leave


def train(group: Group) -> dict[str, torch.Tensor]:
    """Outputs, gradients and running statistics of both directions, for this process's share of a batch of four."""
    torch.manual_seed(0)
    mapper = Mapper().double().train()
    for head in mapper.heads.values():
        torch.nn.init.normal_(head[-1].weight, std=0.02)
    planes, target = torch.rand(2, 4, 4, 32, 48, dtype=torch.float64)
    share = slice(group.rank * group.share(4), (group.rank + 1) * group.share(4))
    if group.size > 1:
        mapper.synchronise(lambda x: all_reduce(x) / group.size, group.size)
    outputs = {to: mapper(planes[share], to) for to in ("a", "b")}
    sum((output - target[share]).square().mean() for output in outputs.values()).backward()
    found = {f"output {to}": output.detach() for to, output in outputs.items()}
    found |= {f"gradient {name}": group.mean_(p.grad) for name, p in mapper.named_parameters()}
    return found | {f"buffer {name}": value for name, value in mapper.named_buffers()} | train_isp(group)


def train_isp(group: Group) -> dict[str, torch.Tensor]:
    """The same of SYENet, whose losses are carried back one after the other."""
    torch.manual_seed(0)
    network = SYENet().double().train()
    packed, *at_image = torch.rand(4, 4, 6, 6), torch.rand(4, 3, 12, 12), torch.rand(4, 3, 12, 12)
    share = slice(group.rank * group.share(4), (group.rank + 1) * group.share(4))
    if group.size > 1:
        assert synchronise(network, group.mean, group.size)
    image = network(packed[share].double())
    gradients = [gradient[share].double() * group.size for gradient in at_image]
    rows = parameter_gradients(image, gradients, list(network.parameters()), batched=False)
    found = {"output isp": image.detach(), "gradient isp": group.mean_(rows)}
    return found | {f"buffer isp {name}": value for name, value in network.named_buffers()}


if __name__ == "__main__":
    group = join("cpu")
    torch.save(train(group), f"{sys.argv[1]}/{group.rank}.pt")
    group.largest(0)  # wait until both have written
    leave()
    assert group is not ALONE
