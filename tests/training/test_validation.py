"""Validation: the mean score of the pairs, alone and shared by processes, and the picture of samples."""

from dataclasses import dataclass, field

import imageio.v3 as iio
import pytest
import torch
from torch import nn

from training.distributed import ALONE, Group
from training.validation import Validation

SCORES = (20.0, 30.0, 40.5)  # of the three pairs


def make_validation(count: int = 3, rows=(), group: Group = ALONE) -> Validation:
    """A validation with inputs (1, 1, 2, 2) of value i for pair i; an output's score is SCORES[i] + its mean."""
    return Validation(
        name="val_score",
        title="",
        unit="",
        count=count,
        pairs=lambda indices: ((torch.full((1, 1, 2, 2), float(i)), torch.tensor([SCORES[i]])) for i in indices),
        score=lambda image, target: target + image.mean(),
        render=lambda generator: lambda inputs: generator(inputs),
        samples=lambda generator: [[generator(image[None])[0] for image in row] for row in rows],
        group=group,
    )


def test_the_score_is_the_mean_over_all_pairs():
    passed = []

    def render(inputs: torch.Tensor) -> torch.Tensor:
        passed.append(float(inputs.mean()))
        return 0 * inputs

    score = make_validation().measure(render)
    assert score == pytest.approx(sum(SCORES) / 3) and isinstance(score, float)
    assert passed == [0.0, 1.0, 2.0]


def test_scoring_needs_no_gradients():
    generator = nn.Conv2d(1, 1, 1)
    outputs = []
    make_validation().measure(lambda inputs: outputs.append(generator(inputs)) or outputs[-1])
    assert len(outputs) == 3 and not any(output.requires_grad for output in outputs)


def test_without_pairs_there_is_no_score():
    assert make_validation(count=0).measure(lambda inputs: inputs) is None


@dataclass(frozen=True)
class RecordingGroup(Group):
    """One of several processes; `sums` holds what it would add up with the others."""

    sums: list = field(default_factory=list)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        self.sums.append(tensor)
        return tensor


def test_processes_share_the_pairs():
    sums = []
    for rank in range(2):
        group, rendered = RecordingGroup(rank, 2, sums=sums), []
        make_validation(group=group).measure(lambda inputs: rendered.append(float(inputs.mean())) or 0 * inputs)  # noqa: B023
        assert rendered == [[0.0, 2.0], [1.0]][rank]
    assert (sums[0] + sums[1]).tolist() == list(SCORES)


def test_samples_are_a_picture_with_a_row_for_each_scene(tmp_path):
    stripes = torch.tensor([0.0, 2.0]).repeat(3, 16, 8)  # clipped to [0, 1] before they are averaged
    rows = [[torch.full((3, 8, 8), shade) for shade in (0.0, 0.5, 2.0)]]
    rows += [[torch.full((3, 16, 16), 1.0), stripes, torch.full((3, 16, 16), -1.0)]]
    path = tmp_path / "new" / "train_0000001.png"
    returned = make_validation(rows=rows).save_samples(path, nn.Identity())
    picture = iio.imread(path)
    assert torch.equal(returned.mul(255).add(0.5).byte().permute(1, 2, 0), torch.from_numpy(picture))
    assert picture.shape == (2 * 8 + 3 * 2, 3 * 8 + 4 * 2, 3)  # scaled to the smallest, with margins of 2 pixels
    shades = [[int(picture[6 + 10 * row, 6 + 10 * column, 0]) for column in range(3)] for row in range(2)]
    assert shades == [[0, 128, 255], [255, 128, 0]]
    assert [file.name for file in path.parent.iterdir()] == ["train_0000001.png"]
