"""`ddpo reproduce` from the command to its result, in small runs of the embedded model."""

import gc
import json
import shlex
import shutil
from pathlib import Path

import jsonschema
import pytest
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from support.trainers import CHECKPOINTING, as_flags

from trainer_ext import DDPOConfig
from trainer_ext.cli import main
from trainer_ext.cli.reproducing.options import ReproduceOptions
from trainer_ext.cli.reproducing.planned import options_over_presets
from trainer_ext.cli.reproducing.reload import reload_of
from trainer_ext.file_names import LORA_FILE
from trainer_ext.reproduction.document import disagreements, schema
from trainer_ext.reproduction.evidence import Evidence
from trainer_ext.reproduction.reading import evidence_of
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.records import write_records

#: Two rollouts, two updates on each, of a few steps; no learning can be shown by that.
SMALL = {
    "model": "embedded",
    "num_train_epochs": 2,
    "num_images_per_rollout": 16,
    "rollout_batch_size": 16,
    "num_inference_steps": 3,
    "num_sample_images": 2,
    "eval_images_per_prompt": 1,
    "eval_reward_funcs": "jpeg_incompressibility",
    "disable_tqdm": "true",
    "use_cpu": "true",
}


def reproduce(folder, **options):
    return main(["reproduce", "compressibility", *as_flags({**SMALL, "output_dir": folder, **options})])


def result_of(folder):
    return json.loads((Path(folder) / "reproduction.json").read_text())


def outcomes(document):
    return {finding["rule"]: finding["outcome"] for finding in document["findings"]}


@pytest.fixture(scope="module")
def loaded():
    """How many models there are in memory when another one is loaded."""
    return []


@pytest.fixture(scope="module")
def small(tmp_path_factory, loaded):
    """The folder of a small run, and its exit status."""
    folder = tmp_path_factory.mktemp("small") / "run"
    from_pretrained = DiffusionPipeline.from_pretrained
    before = {id(model) for model in models()}

    def counted(*args, **options):
        loaded.append(sum(id(model) not in before for model in models()))
        return from_pretrained(*args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DiffusionPipeline, "from_pretrained", counted)
        return folder, reproduce(folder)


def models():
    return [value for value in gc.get_objects() if isinstance(value, UNet2DConditionModel)]


def test_one_model_is_freed_before_the_next_is_loaded(small, loaded):
    """That is measured, the one that is trained, and the one that loads the adapter: a card has room for one."""
    assert loaded == [0, 0, 0]


def test_a_run_leaves_a_result_and_a_report(small):
    folder, status = small
    found = result_of(folder)
    jsonschema.validate(found, schema())
    assert disagreements(found) == []
    expected = {
        "finished": "PASS",
        "ratio": "PASS",
        "replay": "PASS",
        "reload": "PASS",
        "fixed samples": "INCONCLUSIVE",
    }
    assert expected.items() <= outcomes(found).items()
    assert (found["outcome"], status) in {("FAIL", 1), ("INCONCLUSIVE", 3)}
    assert (folder / "report.html").is_file()


def test_the_result_is_what_the_folder_holds(small):
    found, folder = result_of(small[0]), RunFolder(small[0])
    assert found["evidence"]["updates"] == found["evidence"]["planned_updates"] == 4
    assert found["evidence"]["reload"] == {**found["evidence"]["reload"], "n": 2, "differing": 0, "error": 0.0}
    assert [point["reward"] for point in found["curve"]] == [rewards.mean() for rewards in folder.rewards().values()]
    assert found["paired_by_default"]["n"] == 2
    assert found["held_out"].keys() == {"rewards/jpeg_incompressibility"}
    assert found["evidence"]["unseen"] == found["by_prompts"]["eval"]
    assert found["versions"] == folder.setups()[-1]["packages"]
    assert "--output_dir" not in found["changed"]
    assert found["measured"]["sessions"] == 1


def test_a_file_that_was_changed_by_hand(small):
    found = result_of(small[0])
    finding = next(each for each in found["findings"] if each["rule"] == "fixed samples")
    finding["outcome"] = found["outcome"] = "PASS"
    assert disagreements(found) == [
        "the rule 'fixed samples' is PASS, and INCONCLUSIVE by its evidence",
        f"the outcome is PASS, and {'FAIL' if 'FAIL' in outcomes(found).values() else 'INCONCLUSIVE'} by the rules",
    ]


def test_a_resumed_run_keeps_its_plan_and_its_result(small, capsys):
    """One that had made its last update is judged again, as it was."""
    folder, status = small
    before = result_of(folder)
    assert reproduce(folder, resume_from_checkpoint="true") == status
    after = result_of(folder)
    assert after["evidence"] == before["evidence"]
    assert after["measured"]["sessions"] == 2
    assert "measuring" not in capsys.readouterr().err


def test_another_task_is_not_resumed(small, capsys):
    flags = as_flags({**SMALL, "output_dir": small[0], "resume_from_checkpoint": "true"})
    assert main(["reproduce", "incompressibility", *flags]) == 2
    assert "has a reproduction of compressibility on embedded" in capsys.readouterr().err


def test_a_folder_with_a_run_is_refused_before_anything_is_measured(small, capsys):
    assert reproduce(small[0]) == 2
    said = capsys.readouterr().err
    assert "already holds a run" in said
    assert "measuring" not in said


def test_long_work_is_not_started_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert reproduce(tmp_path / "run", num_train_epochs=10**6) == 2
    assert "hours of work. Nobody can be asked here: start it with --yes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_budget_makes_fewer_rollouts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert reproduce(tmp_path / "run", num_train_epochs=10**9, budget="1h") == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("time")]
    assert 0.5 < float(line.split()[2]) <= 1.0


def test_a_card_without_bfloat16_computes_in_float16():
    flags = options_over_presets(ReproduceOptions(task="compressibility"), 16, has_bf16=False)
    assert " ".join(flags).startswith(f"--bf16 false --fp16 true --{CHECKPOINTING} true")


def test_ctrl_c_tells_how_to_resume(forked, tmp_path):
    folder = tmp_path / "run"
    fewer = {"num_sample_images": 0, "sample_defaults": "false", "eval_strategy": "no"}
    arguments = ["reproduce", "compressibility", *as_flags({**SMALL, "output_dir": folder, **fewer})]
    status, log = forked.command(arguments, at="trainer_ext.scoring.suite.RewardSuite.score", call=4)  # two measure
    assert status == 130
    resumed = [*arguments, "--resume_from_checkpoint", "true"]
    assert shlex.join(["ddpo", *resumed]) in log
    main(resumed)
    found = result_of(folder)
    assert found["evidence"]["updates"] == 4
    assert found["measured"]["sessions"] == 2
    assert (
        outcomes(found).items()
        >= {"finished": "PASS", "reload": "INCONCLUSIVE", "unseen prompts": "INCONCLUSIVE"}.items()
    )


def test_evidence_survives_the_file(small):
    values = result_of(small[0])["evidence"]
    assert Evidence.of(values) == evidence_of(RunFolder(small[0]))


def test_an_adapter_that_was_not_saved_as_it_was_trained(small, tmp_path):
    """At half its strength, as where lora_alpha is lost: other pictures."""
    shutil.copytree(small[0], tmp_path / "run")
    file = tmp_path / "run" / LORA_FILE
    with safe_open(file, "pt") as opened:
        metadata, weights = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file({name: value * (0.5 if "lora_B" in name else 1) for name, value in weights.items()}, file, metadata)
    config = DDPOConfig(output_dir=str(tmp_path / "run"), rollout_batch_size=16, use_cpu=True)
    found = reload_of(RunFolder(tmp_path / "run"), config)
    assert (found.n, found.differing) == (2, 2)
    assert 0 < found.error < found.change


def test_a_ratio_that_is_off_is_read_from_the_run(small, tmp_path):
    """The worst of the steps of the first update, not their mean."""
    shutil.copytree(small[0], tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    steps = [{"updates": 1, "rollouts": 0.5, "step": step, "ratio": ratio} for step, ratio in enumerate((1.001, 0.998))]
    write_records(folder.step_file(1), steps)
    assert evidence_of(folder).ratio_error == pytest.approx(0.002)
    folder.step_file(1).unlink()
    assert evidence_of(folder).ratio_error is None
