"""A stranger's plugin, built, installed into an environment of its own, and trained with by name."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REDNESS = ROOT / "examples" / "ddpo-redness"


def build_wheel(project, folder):
    copy = folder / f"{project.name}-source"  # setuptools writes beside the sources
    ignore = ["--exclude=.git", "--exclude=.venv", "--exclude=*.egg-info", "--exclude=build"]
    copy.mkdir()
    subprocess.run(f"tar -C '{project}' {' '.join(ignore)} -cf - . | tar -C '{copy}' -xf -", shell=True, check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob(f"{project.name.replace('-', '_')}*.whl" if project == REDNESS else "ddpo_plugins*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    return build_wheel(ROOT, folder), build_wheel(REDNESS, folder)


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheels):
    """A fresh environment with the two wheels; what they depend on is read from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        *map(str, wheels),
    ]
    subprocess.run(command, check=True)
    (site_packages,) = (folder / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def ddpo(python, *arguments, folder):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python.parent / "ddpo"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_the_wheel_holds_everything(wheels):
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in ("ddpo_plugins", "reward_plugins", "trainer_ext")} <= names
    assert {
        "trainer_ext/embedded/model_index.json",
        "trainer_ext/embedded/unet/diffusion_pytorch_model.safetensors",
        "trainer_ext/embedded/NOTICE",
        "trainer_ext/presets/embedded.yaml",
        "trainer_ext/templates/pyproject.toml.template",
        "reward_plugins/imagenet_animals.txt",
        "reward_plugins/judge/model.safetensors",
        "reward_plugins/judge/NOTICE",
        "reward_plugins/judge/reading/model.safetensors",
        "reward_plugins/judge/reading/NOTICE",
    } <= names
    assert not any(name.startswith(("tests/", "examples/", "benchmarks/")) for name in names)


def test_the_wheel_holds_the_licences(wheels):
    with zipfile.ZipFile(wheels[0]) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        folder = f"{metadata.removesuffix('METADATA')}licenses"
        for licence in ("LICENSE", "trainer_ext/embedded/NOTICE", "reward_plugins/judge/NOTICE"):
            assert wheel.read(f"{folder}/{licence}") == (ROOT / licence).read_bytes()


def test_the_source_distribution_holds_what_the_wheel_is_built_from_and_no_more(tmp_path, wheels):
    copy = wheels[0].parent / f"{ROOT.name}-source"
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    with zipfile.ZipFile(wheels[0]) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} <= names
    top = {name.partition("/")[0] for name in names - {""}}
    assert top <= {"ddpo_plugins", "reward_plugins", "trainer_ext", "ddpo_plugins.egg-info", "pyproject.toml", "setup.cfg",
                   "PKG-INFO", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CITATION.cff"}  # fmt: skip


def test_the_plugin_is_short():
    assert len((REDNESS / "ddpo_redness.py").read_text().splitlines()) < 15


def test_it_is_listed(environment, tmp_path):
    result = ddpo(environment, "rewards", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("redness ")]
    assert line.split()[1:4] == ["reward", "ddpo-redness", "0.1.0"]
    assert str(environment.parent) not in result.stdout


def test_it_trains_by_name(environment, tmp_path):
    options = "--num_sample_images 0 --eval_strategy no --num_train_epochs 1 --num_images_per_rollout 4 --num_images_per_prompt 4 --rollout_batch_size 4 --skip_last_steps 0 --per_device_train_batch_size 4 --num_inference_steps 2"
    result = ddpo(environment, "train", "--reward_funcs", "redness", *options.split(), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "mean reward " in result.stdout
    assert (tmp_path / "ddpo-output" / "pytorch_lora_weights.safetensors").is_file()
