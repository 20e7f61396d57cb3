"""The checkpoint that a command line names: a step of a run, its best or last, a file, a released model."""

import argparse

import pytest

import storage
from config import config as default
from errors import UserError
from tasks import choice


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("x.py")
    choice.add_options(parser, unless="--input")
    return parser


def chosen(*arguments: object, data_root: str = ""):
    return choice.chosen(options().parse_args([*map(str, arguments)]), data_root)


def test_without_options_nothing_is_named():
    given = options().parse_args([])
    assert (given.run, given.runs, given.step, given.checkpoint) == (None, default.runs, None, None)
    assert "unless there is --input" in " ".join(options().format_help().split())


def test_a_step_of_a_run(make_run):
    run = make_run()
    folder, config, path = chosen("--run=tiny", "--runs", run.parent, "--step=30")
    assert (folder, config.run, path) == (run, "tiny", run / "checkpoints" / "step_0000030.pt")


def test_the_dataset_of_a_run_may_have_moved(make_run, tmp_path):
    run = make_run()
    assert chosen("--run=tiny", "--runs", run.parent)[1].data.root == str(tmp_path / "data")
    assert chosen("--run=tiny", "--runs", run.parent, data_root="elsewhere")[1].data.root == "elsewhere"


def test_a_run_without_a_ranking_gives_its_last_checkpoint_and_one_with_it_the_best(make_run, capsys):
    run = make_run()
    assert chosen("--run=tiny", "--runs", run.parent)[2].name == "step_0000050.pt"
    assert "is not ranked (process_set.py): its last checkpoint is taken, step_0000050" in capsys.readouterr().err
    name = "checkpoints/step_0000020.pt"
    best = {"checkpoint": name, "sha256": storage.sha256_of(run / name), "protocol": "paper", "ranked_by": "psnr"}
    storage.write_json(run / "best.json", best)
    assert chosen("--run=tiny", "--runs", run.parent)[2] == run / name
    assert not capsys.readouterr().err


def test_a_file_needs_no_run_and_keeps_the_run_that_is_named(make_run, make_files):
    weights, run = make_files()[0], make_run()
    assert chosen("--checkpoint", weights) == (None, None, weights)
    folder, config, path = chosen("--checkpoint", weights, "--run=tiny", "--runs", run.parent)
    assert (folder, config.run, path) == (run, "tiny", weights)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (("--run=other",), "no run .*other"),
        (("--run=tiny", "--step=15"), "has no checkpoint of step 15"),
        (("--checkpoint=none.pt",), "no file none.pt, and no released model"),
    ),
)
def test_what_does_not_exist_is_refused(make_run, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        chosen("--runs", make_run().parent, *arguments)
