"""What a mode of training consists of: its stages, each with its terms and critics, and the data that it needs."""

from dataclasses import dataclass

from tasks.parts import WHOLE, Part

Terms = dict[str, tuple[str, str | None]]  # name in losses.LOSSES -> (feature, what it is compared with)


@dataclass(frozen=True)
class StagePlan:
    """A stage of a mode: its terms and critics. Their weights, and the steps, are the config's section of that name.

    The weight of a term is the field NAME, that of a critic the field adv_NAME; 0 leaves it out. Which critics there
    are for "color" and for "texture", the config chooses from `CRITICS`. A new stage needs a name of its own, a section
    of the config and a row in `BUILDERS`; those of published recipes have none (tasks/recipes.py).
    """

    name: str  # "pretrain" or "train"; also names the stage in the log
    result: str  # what summary.json calls the generator after this stage
    terms: Terms
    critics: tuple[str, ...] = ()  # of "color", "texture" (Fig. 3)
    save_steps: bool = True  # save checkpoints on the way, not only one at the end
    part: Part = WHOLE  # what it trains of the network


@dataclass(frozen=True)
class Mode:
    """A way to train: its stages, and the data that it needs."""

    stages: tuple[StagePlan, ...]
    needs_pairs: bool = False  # otherwise paired data are separated as data.unpaired says
    synthetic: bool = False  # trains on pairs that are made of the photographs (data/synthetic.py)

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the stages of a mode need different names, not {names}")

    def stage(self, name: str) -> StagePlan:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)
