"""The files of `examples/launch`, each checked by what reads it; Slurm's is run, with stand-ins for Slurm."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from support.pages import ROOT, ddpo_arguments
from support.processes import environment, start, wait_until
from support.trainers import TINY, all_records, as_flags

from trainer_ext import DDPOConfig
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.parse import load_preset, parse
from trainer_ext.runs.manifest import find_damage

LAUNCH = ROOT / "examples" / "launch"
SLURM = LAUNCH / "slurm.sh"


def check_train(words):
    """`ddpo train` takes these options."""
    arguments = [*ddpo_arguments(words), "--use_cpu", "true"]
    assert arguments[0] == "train"
    parse((RunOptions, LoraOptions, DDPOConfig), arguments[1:], "ddpo train", load_preset(arguments[1:]))


def test_no_file_is_forgotten():
    named = re.findall(r"examples/launch/([\w.]+)\)", (ROOT / "docs" / "distributed.md").read_text())
    assert sorted(named) == sorted(file.name for file in LAUNCH.iterdir())


def test_bash_reads_the_script_and_shellcheck_finds_nothing():
    subprocess.run(["bash", "-n", SLURM], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([shellcheck, "--severity=style", SLURM], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_slurm_is_asked_for_what_the_script_needs():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SLURM.read_text(), flags=re.M))
    assert asked["signal"].startswith("B:TERM@")  # to the script, which passes it on, before the time is up
    assert int(asked["signal"].rpartition("@")[2]) > 60
    assert "requeue" in asked
    assert (asked["ntasks-per-node"], asked["open-mode"]) == ("1", "append")


def test_the_file_of_skypilot():
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert set(task) <= {"name", "resources", "workdir", "envs", "file_mounts", "setup", "run"}
    assert task["resources"]["use_spot"] is True
    words = shlex.split(task["run"].replace("$OPTIONS", task["envs"]["OPTIONS"]).replace("\\\n", ""))
    assert words[words.index("--no-python") + 1] == ".venv/bin/ddpo"
    check_train(["ddpo", *words[words.index("--no-python") + 2 :]])
    assert task["file_mounts"]["/outputs"]["mode"] == "MOUNT"
    assert (ROOT / task["setup"].split()[1]).is_file()


def test_the_file_of_hf_jobs(monkeypatch, capsys):
    source = (LAUNCH / "hf_job.py").read_text()
    (block,) = re.findall(r"^# /// script$\n((?:^#.*$\n)+?)^# ///$", source, flags=re.M)  # as PEP 723 defines it
    metadata = tomllib.loads(
        "".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines(keepends=True))
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["requires-python"] == project["requires-python"]
    (needed,) = map(Requirement, metadata["dependencies"])
    assert needed.name == project["name"]
    assert needed.url == f"git+{project['urls']['Homepage']}"
    monkeypatch.setattr(sys, "argv", ["hf_job.py", "--nonsense", "1"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(LAUNCH / "hf_job.py"), run_name="__main__")
    assert ended.value.code == 2
    assert "Unknown options: --nonsense 1" in capsys.readouterr().err


def test_the_file_of_kubernetes():
    job = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_train([*container["command"], *container["args"]])
    assert pod["restartPolicy"] == "OnFailure"
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert container["args"][3].startswith(container["volumeMounts"][0]["mountPath"])


# Slurm's script, with stand-ins for Slurm's commands on PATH


def stand_in(folder, name, script):
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
    """Start the script as Slurm does."""
    commands = tmp_path / "bin"
    commands.mkdir()
    stand_in(commands, "srun", 'exec "$@"')
    stand_in(
        commands, "scontrol", f'if [ "$1" = show ]; then echo localhost; else echo "$@" >>{tmp_path}/scontrol.log; fi'
    )
    stand_in(commands, "torchrun", f'exec {sys.executable} -m torch.distributed.run "$@"')
    stand_in(commands, "ddpo", f'exec {sys.executable} -m trainer_ext.cli "$@"')
    of_slurm = {"SLURM_JOB_ID": "77", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "localhost"}
    variables = {**environment(), **of_slurm, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}

    def sbatch(folder, **options):
        flags = as_flags(
            {
                **TINY,
                "reward_funcs": "jpeg_compressibility",
                "num_train_epochs": 6,
                "preset": "none",
                "output_dir": folder,
                **options,
            }
        )
        return start(
            ["bash", SLURM, *flags], variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    return sbatch


@pytest.mark.full  # torchrun, three times
def test_slurm_ends_the_job_and_starts_it_again(slurm, tmp_path):
    """SIGTERM to the script alone, as `--signal=B:TERM` sends it; the second job ends as if there had been one."""
    folder = tmp_path / "run"
    with slurm(folder) as job:
        wait_until((folder / "rollouts" / "rollout-00001.parquet").is_file, job)
        job.send_signal(signal.SIGTERM)
        said = job.communicate()[0]
    assert job.returncode == 0, said
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
    left = sorted(folder.glob("checkpoint-*"))
    assert [find_damage(each) for each in left] == [None], said
    assert len(all_records(folder)) < 6
    for name in ("run", "alone"):
        with slurm(tmp_path / name) as job:
            said = job.communicate()[0]
        assert job.returncode == 0, said
    assert all_records(folder) == all_records(tmp_path / "alone")
    weights = [(tmp_path / name / "pytorch_lora_weights.safetensors").read_bytes() for name in ("run", "alone")]
    assert weights[0] == weights[1]


@pytest.mark.full
def test_a_training_that_fails_is_not_queued_again(slurm, tmp_path):
    with slurm(tmp_path / "run", reward_funcs="jpeg") as job:
        said = job.communicate()[0]
    assert job.returncode != 0
    assert "Unknown reward 'jpeg'" in said
    assert not (tmp_path / "scontrol.log").exists()
