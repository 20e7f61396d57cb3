"""Checkpoints and files of weights that are damaged, hostile or of another kind: one sentence that names the file.

A new case is a row of a table: (what is wrong, how to make it, the expected sentence).
"""

from collections import OrderedDict

import pytest
import torch

from errors import UserError
from models import build_model
from pretrained.zoo import open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch, which makes such tensors reluctantly

UNUSABLE = "has weights that cannot be used: conv1.bias is no tensor of real numbers .{}"
BAD_WEIGHTS = (
    ("bool", torch.Tensor.bool, UNUSABLE.format("bool")),
    ("int", torch.Tensor.int, UNUSABLE.format("int32")),
    ("complex", torch.Tensor.cfloat, UNUSABLE.format("complex64")),
    ("sparse", torch.Tensor.to_sparse, UNUSABLE.format("float32, sparse_coo")),
    ("meta", lambda weight: weight.to("meta"), UNUSABLE.format("float32, strided, on meta")),
    ("quantised", lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), UNUSABLE.format("qint8")),
    ("NaN", lambda weight: weight * float("nan"), "has weights that are not finite"),
    ("too large for float32", lambda weight: weight.double() + 1e300, "has weights that are not finite"),
)


@pytest.mark.parametrize(("change", "sentence"), [row[1:] for row in BAD_WEIGHTS], ids=[row[0] for row in BAD_WEIGHTS])
@pytest.mark.parametrize("of_fit", (True, False))
def test_a_generator_with_unusable_weights_is_refused(change, sentence, of_fit, tmp_path):
    state = OrderedDict(build_model("efficient").state_dict())
    state["conv1.bias"] = change(state["conv1.bias"])
    torch.save({"model": "efficient", "generator": state} if of_fit else state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt {sentence}"):
        open_checkpoint(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
def test_any_floating_point_precision_is_accepted(dtype, tmp_path):
    torch.save(build_model("efficient").to(dtype).state_dict(), tmp_path / "w.pt")
    name, state, _ = open_checkpoint(str(tmp_path / "w.pt"))
    build_model(name).load_state_dict(state)


def test_a_nested_tensor_is_refused(tmp_path):
    state = OrderedDict(build_model("efficient").state_dict())
    state["conv1.bias"] = torch.nested.nested_tensor([state["conv1.bias"]])
    torch.save({"model": "efficient", "generator": state}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="w.pt holds weights that do not fit .*conv1.bias is not a tensor"):
        open_checkpoint(str(tmp_path / "w.pt"))


BAD_FILES = (
    ("nothing", b""),
    ("a web page", b"<!DOCTYPE html><html><body>404</body></html>"),
    ("the start of a pickle", b"\x80\x02"),
    ("an endless pickle", b"\x80\x02" + b"]" * 10**5),
    ("a pickle that calls a function", b"cos\nsystem\n(S'true'\ntR."),
    ("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
)


@pytest.mark.parametrize("content", [row[1] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_a_file_that_is_no_checkpoint_is_refused_without_advice_to_load_it_unsafely(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match="w.pt is not a readable checkpoint or weights file") as caught:
        open_checkpoint(str(tmp_path / "w.pt"))
    sentence = str(caught.value)
    assert "weights_only" not in sentence and "Errno" not in sentence and "\n" not in sentence


@pytest.mark.parametrize("missing", (1, 22, 100, 5000, 14000))
def test_a_cut_checkpoint_is_refused(missing, tmp_path):
    torch.save({"model": "efficient", "generator": build_model("efficient").state_dict()}, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:-missing])
    with pytest.raises(UserError, match="w.pt is not a readable checkpoint or weights file: it is damaged, [^E]*$"):
        open_checkpoint(str(tmp_path / "w.pt"))
