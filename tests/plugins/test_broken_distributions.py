"""Distributions whose metadata is broken: each is named, and the rest works."""

import re
import subprocess
import sys

import pytest

from ddpo_plugins import load_catalogue
from trainer_ext.cli import main

GOOD = """
from ddpo_plugins import RewardSpec, hookimpl
@hookimpl
def ddpo_register_rewards():
    return [RewardSpec({!r}, lambda device: lambda images, **columns: [1.0] * len(images), 'Mine.')]
"""


@pytest.fixture
def break_file(install, tmp_path):
    """Install a plugin, and give one of its files of metadata another content."""

    def break_file(name, content):
        install("bad-dist", "bad", GOOD.format("bad_reward"), version="0.3")
        (tmp_path / "bad-dist-0.3.dist-info" / name).write_bytes(content)

    return break_file


VALUE = "its entry point is '{}' = '{}'; the value must be a module.*pyproject.toml, and install the plugin again"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("entry_points.txt", b"[ddpo_plugins]\nbad = a b c !\n", VALUE.format("bad", "a b c !")),
        ("entry_points.txt", b"[ddpo_plugins]\nbad =\n", VALUE.format("bad", "")),
        ("entry_points.txt", b"[ddpo_plugins]\na b c ! = no_such_module\n", r"'a b c !' \(bad-dist 0.3\) failed: .*no module 'no_such_module'"),
        ("entry_points.txt", b"[ddpo_plugins]\nbad = bad_dist_module:nothing\n", "AttributeError"),
        ("entry_points.txt", b"[ddpo_plugins]\nbad\n", "metadata of bad-dist cannot be read: install it again, or remove .*bad-dist-0.3.dist-info"),
        ("entry_points.txt", b"\xff\xfe[ddpo_plugins]\nbad = bad_dist_module\n", "UnicodeDecodeError.*install it again"),
        ("METADATA", b"Name: bad-dist\nVersion: 0.3\nAuthor: \xe9\xff\n", "UnicodeDecodeError.*install it again"),
        ("METADATA", b"Metadata-Version: 2.1\n", "ValueError: its metadata has the name None.*install it again"),
    ],
)  # fmt: skip
def test_it_is_named_and_the_rest_works(break_file, install, capsys, file, content, message):
    break_file(file, content)
    install("good-dist", "good", GOOD.format("good_reward"))
    assert main(["rewards"]) == 1
    listed, failures = capsys.readouterr().out.split("\n\n", 1)
    assert "good_reward" in listed
    assert "jpeg_compressibility" in listed
    assert "bad_reward" not in listed
    (failure,) = load_catalogue().failures
    assert str(failure) == failures.strip()
    assert "(bad-dist 0.3)" in failures.split(" failed: ")[0]
    assert re.search(message, failures), failures


def test_a_training_warns_of_it_and_trains(break_file, tmp_path, caplog):
    break_file("METADATA", b"\xff")
    options = (
        f"--output_dir {tmp_path / 'run'} --reward_funcs jpeg_compressibility --num_train_epochs 1 --num_inference_steps 2 "
        "--skip_last_steps 0 --num_images_per_rollout 2 --num_images_per_prompt 1 --rollout_batch_size 2 "
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --disable_tqdm true --use_cpu true "
        "--num_sample_images 0 --save_strategy no --eval_strategy no"
    )
    assert main(["train", *options.split()]) == 0
    assert [m for m in caplog.messages if m.startswith("Plugin ")] == [str(load_catalogue().failures[0])]


def test_where_torch_itself_cannot_be_imported_the_distribution_is_named(break_file, tmp_path):
    """Torch and fsspec read the entry points of all distributions."""
    break_file("entry_points.txt", b"\xff")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from trainer_ext.cli import main; sys.exit(main(sys.argv[1:]))"
    run = [sys.executable, "-c", code]
    listed = subprocess.run([*run, "rewards"], capture_output=True, text=True)
    assert listed.returncode == 1
    assert "jpeg_compressibility" in listed.stdout
    trained = subprocess.run(
        [*run, "train", "--reward_funcs", "jpeg_compressibility"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (trained.returncode, trained.stdout) == (2, "ddpo train: loading libraries\n")
    message = "ddpo train: Plugin 'bad-dist' (bad-dist 0.3) failed: UnicodeDecodeError: "
    assert trained.stderr.strip().startswith(message)
    assert "install it again, or remove" in trained.stderr
    assert "Traceback" not in trained.stderr
