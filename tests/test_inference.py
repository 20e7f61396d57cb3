"""Scoring checkpoints with inference.py: which checkpoints, their tables, and mistakes."""

from pathlib import Path

import pytest
import torch

import inference
from evaluation.tables import checkpoints, read_table
from models import build_model


def options(run: Path) -> tuple[str, ...]:
    return f"--run={run.name}", f"--runs={run.parent}", "--device=cpu"


def test_the_table_s_header_says_what_was_scored(make_run, call):
    run = make_run()
    assert call(inference, 20, *options(run), "--measures", "psnr", "ssim")[0] == 0
    table = read_table(run / "scores" / "step_0000020.csv")
    assert table.columns == ("psnr", "ssim") and table.header["checkpoint"] == "step_0000020.pt"
    assert table.header["protocol"].startswith("paper: ") and table.header["data"].startswith("3 files")
    assert table.mean["ssim"] == pytest.approx(sum(row["ssim"] for row in table.rows.values()) / 3, abs=1e-6)


def test_each_protocol_has_its_own_tables(make_run, call):
    run = make_run()
    for protocol in ("paper", "ntire26"):
        assert call(inference, 20, *options(run), "--protocol", protocol)[0] == 0
    tables = [read_table(run / "scores" / part / "step_0000020.csv") for part in ("", "ntire26")]
    assert [table.header["protocol"].split(":")[0] for table in tables] == ["paper", "ntire26"]


def test_checkpoints_are_chosen_by_step_by_index_or_all(make_run, call):
    run = make_run()

    def scored() -> list[str]:
        return sorted(path.stem[-2:] for path in (run / "scores").glob("*.csv"))

    assert call(inference, 20, 50, *options(run))[0] == 0 and scored() == ["20", "50"]
    assert call(inference, "--n", 4, "--remainder", 0, *options(run))[0] == 0 and scored() == ["10", "20", "50"]
    status, output = call(inference, "--all", *options(run))
    assert status == 0 and len(scored()) == 5
    assert "5 of 5 checkpoints have scores in" in output and "3 of them had before" in output


def test_a_released_file_is_scored_like_a_checkpoint_of_the_same_weights(make_run, call, tmp_path):
    run = make_run(count=1)
    torch.manual_seed(0)
    torch.save(build_model("efficient").state_dict(), tmp_path / "released.pth")
    assert call(inference, "--checkpoint", tmp_path / "released.pth", *options(run))[0] == 0
    assert call(inference, "--all", *options(run))[0] == 0
    released, own = (read_table(run / "scores" / name).mean for name in ("released.csv", "step_0000010.csv"))
    assert released == own


def test_a_checkpoint_of_another_run_gets_a_table_of_its_own(make_run, call):
    run, other = make_run(), make_run("other")
    assert call(inference, "--all", *options(run))[0] == 0
    table = (run / "scores" / "step_0000010.csv").read_bytes()
    (other / "checkpoints" / "step_0000010.pt").write_bytes((other / "checkpoints" / "step_0000020.pt").read_bytes())
    assert call(inference, "--checkpoint", other / "checkpoints" / "step_0000010.pt", *options(run))[0] == 0
    assert (run / "scores" / "step_0000010.csv").read_bytes() == table
    foreign, own = (read_table(run / "scores" / f"{name}.csv") for name in ("other_step_0000010", "step_0000020"))
    assert foreign.mean == own.mean
    same = run / ".." / run.name / "checkpoints" / "step_0000010.pt"
    assert "1 of them had before" in call(inference, "--checkpoint", same, *options(run))[1]


def test_damaged_checkpoints_are_named_and_the_others_are_scored(make_run, call):
    run = make_run()
    paths = checkpoints(run)
    paths[1].write_bytes(b"not a checkpoint")
    content = torch.load(paths[2], weights_only=True)
    content["generator"]["conv1.bias"][0] = float("nan")
    torch.save(content, paths[2])
    status, output = call(inference, "--all", *options(run))
    assert status == 2 and "Traceback" not in output
    assert "step_0000020.pt is not a readable" in output and "step_0000030.pt has weights that are not finite" in output
    assert {path.stem for path in (run / "scores").glob("*.csv")} == {"step_0000010", "step_0000040", "step_0000050"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("30", "35"), "no checkpoint of step 35; nearest are: 30, 40"),
        (("--n", "100", "--remainder", "7"), "none of index modulo 100 in 7"),
        (("--n", "0"), "--n must be at least 1, but is 0"),
        (("--n", "4", "--remainder", "4"), "--remainder must lie between"),
        (("--all", "--at-once", "-1"), "--at-once must lie between 0 and 1024, but is -1"),
        (("--checkpoint", "absent"), "no file absent"),
        (("--all", "--measures", "delta_e", "--protocol", "pyiqa"), "protocol 'pyiqa' has no measure 'delta_e'"),
        (("--all", "--data-root", "nowhere"), "no folder nowhere"),
        (("--all", "--remainder", "1"), "--remainder needs --n"),
        (("10", "--remainder", "0"), "--remainder needs --n"),
        (("--all", "--rank", "unpaired", "--protocol", "ntire26"), "--protocol has no effect with --rank unpaired"),
        (("--all", "--rank", "unpaired", "--protocol", "paper"), "--protocol has no effect with --rank unpaired"),
        (("--all", "--rank", "unpaired", "--measures", "ssim"), "--measures has no effect with --rank unpaired"),
        (("10", "--all"), "not allowed with"),
        ((), "required"),
    ),
)
def test_a_mistake_ends_with_a_message(make_run, call, arguments, message):
    status, output = call(inference, *arguments, *options(make_run()))
    assert status == 2 and message in output and "Traceback" not in output


def test_an_unknown_run_lists_the_existing_ones(make_run, call):
    run = make_run()
    status, output = call(inference, "--all", "--run=other", f"--runs={run.parent}")
    assert status == 2 and "no run" in output and "tiny" in output


def test_a_run_without_pairs_is_scored_without_ground_truth(make_run, call):
    run = make_run(layout="folders", pairs="no")
    config = (run / "config.json").read_text()
    root = run.parents[1] / "data" / "train"
    config = config.replace('"raw": ""', f'"raw": "{root / "mediatek_raw"}"')
    (run / "config.json").write_text(config.replace('"photos": ""', f'"photos": "{root / "fujifilm"}"'))
    status, output = call(inference, "--all", *options(run))
    assert status == 2 and "no validation pairs" in output and "--rank unpaired" in output
    assert call(inference, 10, 20, *options(run), "--rank", "unpaired")[0] == 0
    table = read_table(run / "scores" / "unpaired" / "step_0000010.csv")
    assert table.columns == ("unpaired", "texture", "semantics", "color", "content")
    assert len(table.rows) == 4 and table.header["photographs"] == "4" and table.header["vit"].startswith("random")
