"""Pages of help, lists of what there is, and errors as one line."""

import contextlib
import re
import subprocess
from dataclasses import fields
from importlib.metadata import version

import pytest
from support.processes import environment

from ddpo_plugins import load_catalogue
from trainer_ext import DDPOConfig
from trainer_ext.cli import COMMANDS, main
from trainer_ext.cli.listing.completion import script
from trainer_ext.cli.parse import load_preset, preset_files
from trainer_ext.cli.screens import faults
from trainer_ext.cli.screens.groups import GROUPS
from trainer_ext.cli.train import OPTIONS
from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.learning.weighting import AGGREGATIONS, BASELINES
from trainer_ext.options import CHOICES, InheritedOptions, default_of
from trainer_ext.policy.transitions.samplers import SAMPLERS


def page(capsys, *arguments):
    assert main([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def described(text):
    """The options of a page, each with all of its text."""
    found = re.split(r"^  --(\w+)", text, flags=re.M)
    return [(name, " ".join(rest.split())) for name, rest in zip(found[1::2], found[2::2], strict=True)]


def test_each_option_is_shown_once_in_a_group(capsys):
    text = page(capsys, "train")
    names = [name for name, _ in described(text)]
    assert sorted(names) == sorted({item.name for kind in OPTIONS for item in fields(kind)})
    assert len(names) == len(set(names))
    for title in GROUPS:
        assert f"\n{title}:\n" in text
    for name in ("seed", "bf16", "max_steps", "eval_strategy", "resume_from_checkpoint", "config"):
        assert name in names
    assert text.index("--model_name_or_path") < text.index("--learning_rate") < text.index("--save_steps")


@pytest.mark.parametrize(
    ("arguments", "presets"),
    [([], ["embedded"]), (["--preset", "lora/aesthetic"], ["lora/aesthetic"]), (["--preset", "none"], [])],
)
def test_the_defaults_are_those_that_will_apply(capsys, arguments, presets):
    shown = dict(described(page(capsys, "train", *arguments)))
    sets = load_preset(arguments)
    for name in ("learning_rate", "num_inference_steps", "eval_strategy", "lora_r"):
        if name in sets:
            assert f"(default: {sets[name]}, preset {' and '.join(presets)})" in shown[name]
        else:
            assert (
                f"(default: {next(default_of(item) for kind in OPTIONS for item in fields(kind) if item.name == name)})"
                in shown[name]
            )


def test_choices_are_those_that_there_are(capsys):
    shown = dict(described(page(capsys, "train")))
    tables = {
        "algorithm": ALGORITHMS,
        "advantages": BASELINES,
        "multi_objective_aggregation": AGGREGATIONS,
        "sampler": SAMPLERS,
    }
    for name, names in tables.items():
        assert CHOICES[name] == tuple(names)
        assert shown[name].startswith(f"{{{','.join(names)}}}")


def test_inherited_options_have_the_defaults_of_transformers():
    own = {item.name: item for item in fields(DDPOConfig)}
    for item in fields(InheritedOptions):
        assert default_of(own[item.name]) == item.default, item.name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], ["there is no command 'trian'. Did you mean train?"]),
        (["train", "--num_train_epochs", "x"], ["argument --num_train_epochs: invalid float value: 'x'. `ddpo train --help`"]),
        (["train", "--bf16", "maybe"], ["argument --bf16: "]),
        (["train", "--seeed", "3"], ["Unknown options: --seeed 3.\n--seeed: did you mean --seed"]),
        (["sample", "--step", "3"], ["Unknown options: --step 3."]),
        (["rewards", "aestetic"], ["Nothing that is installed is called 'aestetic'. Did you mean aesthetic"]),
        (["rewards", "a", "b"], ["unrecognized arguments: b"]),
        (["presets", "lora/painting"], ["There is no preset 'lora/painting'; there are: awm, budget/1h, budget/8h, embedded"]),
        (["new-plugin"], ["the following arguments are required: name"]),
        (["completion", "fish"], ["invalid choice: 'fish'"]),
    ],
)  # fmt: skip
def test_an_error_is_the_error(capsys, arguments, said):
    """Without the usage before it, which has as many lines as there are options."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    for text in said:
        assert text in error
    assert len(error.strip().splitlines()) <= 2
    assert "usage:" not in error


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddpo-plugins {version('ddpo-plugins')}\n"


def test_env(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert f"- torch: {version('torch')}\n" in out
    assert "hf_secret" not in out


def test_presets(capsys):
    assert main(["presets"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]
    assert listed == list(preset_files())
    assert main(["presets", "embedded"]) == 0
    assert "Nothing is downloaded: this works offline." in capsys.readouterr().out
    assert main(["presets", "lora/aesthetic"]) == 0
    out = capsys.readouterr().out
    assert "learning_rate: 3.0e-4" in out
    assert "trl-lib/ddpo-aesthetic-predictor (not here yet)" in out


@pytest.mark.parametrize(
    "name", ["jpeg_compressibility", "aesthetic", "clip_score", "blank_or_noise", "animals", "cfg"]
)
def test_what_is_known_of_one(capsys, name):
    assert main(["rewards", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{name}: ")
    assert ("this works offline" in out) == (name in ("jpeg_compressibility", "blank_or_noise"))
    assert ("openai/clip-vit-large-patch14" in out) == (name in ("aesthetic", "clip_score"))
    assert ("  an ant\n" in out) == (name == "animals")


def test_every_offer_can_be_described(capsys):
    catalogue = load_catalogue()
    for offers in (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules):
        for name in offers:
            assert main(["rewards", name]) == 0


def test_bash_completes():
    """By bash itself: a command, an option, and a name."""
    wanted = {
        "ddpo tr": "train",
        "ddpo train --reward_f": "--reward_funcs",
        "ddpo train --algorithm r": "rwr",
        "ddpo presets lora/ae": "lora/aesthetic",
    }
    for words, expected in wanted.items():
        *_, last = words.split()
        ask = f'COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _shtab_ddpo; echo "${{COMPREPLY[@]}}"'
        result = subprocess.run(
            ["bash", "-c", f"{script('bash')}\n{ask}"], capture_output=True, text=True, env=environment(), check=True
        )
        assert expected in result.stdout.split(), (words, result.stdout, last)


# ---- errors of other libraries ----


def failing(monkeypatch, error):
    def run(arguments):
        exec(compile("raise error", "other.py", "exec"), {"__name__": "other.library", "error": error})

    monkeypatch.setattr("trainer_ext.cli.listing.environment.run", run)


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_of_another_library_is_one_line(capsys, monkeypatch, tmp_path, debug):
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path))
    failing(
        monkeypatch, RuntimeError("CUDA is out of memory. Tried 2 GiB, key hf_secretsecretsecretsecret.\n\nlong advice")
    )
    if debug:
        with pytest.raises(RuntimeError, match="out of memory"):
            main(["env", "--debug"])
        return
    assert main(["env"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("ddpo env: RuntimeError: CUDA is out of memory. Tried 2 GiB, key ***")
    (file,) = tmp_path.iterdir()
    assert str(file) in line
    assert "Traceback" in file.read_text()
    assert "hf_secret" not in file.read_text()


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError()])
def test_a_fault_of_a_program_keeps_its_trace(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["env"])


@pytest.mark.parametrize("command", COMMANDS)
def test_all_commands_have_a_page(capsys, command):
    with contextlib.suppress(SystemExit):
        assert main([command, "--help"]) == 0
    assert f"ddpo {command}" in capsys.readouterr().out
