"""Ways to break a plugin: each ends in a message that says what to do, from the command line and from the authors' kit."""

import re

import pytest

from ddpo_plugins import ContractError, load_catalogue
from ddpo_plugins.testing import check_detector, check_plugin, check_prompt_set, check_reward
from trainer_ext.cli import main

HEAD = "import math\nfrom ddpo_plugins import DetectorSpec, PromptSetSpec, RewardSpec, hookimpl\n"
REWARD = "@hookimpl\ndef ddpo_register_rewards():\n    return [RewardSpec('mine', {}, 'Mine.')]\n"
PROMPTS = "@hookimpl\ndef ddpo_register_prompts():\n    return [PromptSetSpec('mine_prompts', {}, 'Mine.')]\n"
DETECTOR = "@hookimpl\ndef ddpo_register_detectors():\n    return [DetectorSpec('mine_seen', {}, 'Mine.')]\n"

TRAIN = [
    "--num_train_epochs",
    "1",
    "--num_inference_steps",
    "2",
    "--skip_last_steps",
    "0",
    "--num_images_per_rollout",
    "2",
    "--num_images_per_prompt",
    "1",
    "--rollout_batch_size",
    "2",
    "--per_device_train_batch_size",
    "2",
    "--gradient_accumulation_steps",
    "1",
    "--disable_tqdm",
    "true",
    "--use_cpu",
    "true",
    "--num_sample_images",
    "0",
    "--save_strategy",
    "no",
]


def built(function):
    return HEAD + f"def score(images, prompts, **columns):\n    {function}\n" + REWARD.format("lambda device: score")


#: What is found when plugins are loaded: the source, and the message.
AT_LOADING = {
    "hookimpl forgotten": (
        HEAD + REWARD.replace("@hookimpl\n", "").format("lambda device: None"),
        "ddpo_register_rewards implements no hook. Decorate its function with `@ddpo_plugins.hookimpl`",
    ),
    "hookimpl forgotten beside another hook": (
        HEAD + REWARD.replace("@hookimpl\n", "").format("lambda device: None") + PROMPTS.format("lambda: []"),
        "ddpo_register_rewards implements no hook. Decorate its function with `@ddpo_plugins.hookimpl`",
    ),
    "hook misspelt": (
        HEAD + REWARD.replace("rewards", "reward").format("lambda device: None"),
        "Rename ddpo_register_reward to ddpo_register_rewards",
    ),
    "hook misspelt and hookimpl forgotten": (
        HEAD + REWARD.replace("@hookimpl\ndef ddpo_register_rewards", "def ddpo_register_reward").format("max") + PROMPTS.format("lambda: []"),
        "ddpo_register_reward implements no hook. Decorate",
    ),
    "missing import": (
        "import no_such_module.part\n" + HEAD,
        "needs the module 'no_such_module': `pip install no_such_module`.*add it to the plugin's dependencies",
    ),
    "syntax error": (HEAD + "def oops(:\n", "SyntaxError: invalid syntax.*Correct line 3 of .*mine_dist_module.py"),
    "factory without device": (
        HEAD + REWARD.format("lambda: None"),
        r"'mine': factory is called with device=..., and it takes \(\). Define it with that argument: `def build_mine\(device\)",
    ),
    "a reward where the factory belongs": (
        HEAD + "def score(images, prompts, **columns): return [1.0] * len(images)\n" + REWARD.format("score"),
        r"factory is the reward itself, as it takes \(images, prompts, \*\*columns\).*factory=lambda device: my_reward",
    ),
    "a detector where the factory belongs": (
        HEAD + "def score(images, **columns): return [1.0] * len(images)\n" + DETECTOR.format("score"),
        "factory is the detector itself.*factory=lambda device: my_detector",
    ),
    "a spec instead of a list": (
        HEAD + REWARD.format("lambda device: None").replace("[", "").replace("]", ""),
        r"it must return an iterable of RewardSpec: `return \[RewardSpec\(...\)\]`",
    ),
    "specs that never end": (
        HEAD + "@hookimpl\ndef ddpo_register_rewards():\n    i = 0\n    while True:\n        i += 1; yield RewardSpec(f'r{i}', lambda device: None)\n",
        "more than 10000 specs.*Does its iterable end",
    ),
    "a description that is no text": (
        HEAD + REWARD.format("lambda device: None").replace("'Mine.'", "None"),
        "description must be a text of one line; got None",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", AT_LOADING)
def test_at_loading(install, tmp_path, capsys, way):
    source, message = AT_LOADING[way]
    install("mine-dist", "mine", source)
    assert main(["rewards"]) == 1
    output = capsys.readouterr().out
    assert "Plugin 'mine' (mine-dist 1.0) failed: " in output
    assert re.search(message, output)
    assert main(["train", "--reward_funcs", "mine", "--output_dir", str(tmp_path / "run")]) == 2
    assert re.search(message, capsys.readouterr().err)
    with pytest.raises(ContractError, match=message):
        check_plugin("mine")


#: What is found when a reward is built or called: the source, what the training says, and what the kit says.
IN_USE = {
    "NaN": (
        built("return [math.nan] * len(images)"),
        "Reward 'mine' returned nan for prompt .* Return None where there is none",
        "returned nan for prompt .* Return None where there is none",
    ),
    "without **columns": (
        HEAD + "def score(images, prompts): return [1.0]\n" + REWARD.format("lambda device: score"),
        r"takes only \(images, prompts\).*define it as `def reward\(images, prompts, \*\*columns\)`",
        r"Take \*\*columns",
    ),
    "a reward that takes anything where the factory belongs": (
        HEAD + REWARD.format("lambda **columns: [1.0]"),
        "Reward 'mine' is a list; it must be a function. The factory of plugin 'mine' .* returned it: a factory gets `device`",
        "it raised nothing. Name each option",
    ),
    "one float for a batch": (
        built("return 1.0"),
        "returned a float; expected a list of 2 floats.*Return a list with one float or None for each image",
        "returned a float; .*Return a list with one float or None for each image",
    ),
    "a tensor without dimensions": (
        built("import torch; return torch.tensor(1.0)"),
        r"returned shape \(\); expected \(2,\), one for each image. Return a list",
        r"returned shape \(\); expected \(4,\), one for each image. Return a list",
    ),
    "an array without dimensions": (
        built("import numpy; return numpy.array(1.0)"),
        r"returned shape \(\); expected \(2,\), one for each image. Return a list",
        r"returned shape \(\); expected \(4,\), one for each image. Return a list",
    ),
    "missing import in the call": (
        built("import no_such_module"),
        "raised ModuleNotFoundError.*`pip install no_such_module`",
        "raised ModuleNotFoundError.*`pip install no_such_module`",
    ),
    "missing import in the factory": (
        HEAD + "def build(device): import no_such_module\n" + REWARD.format("build"),
        "could not build reward 'mine': ModuleNotFoundError.*`pip install no_such_module`",
        "`pip install no_such_module`",
    ),
}  # fmt: skip


#: Rows that fail as others do, each after a rollout.
LIKE_OTHERS = ("a tensor without dimensions", "an array without dimensions", "missing import in the call")


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.full if way in LIKE_OTHERS else []) for way in IN_USE]
)
def test_in_use(install, tmp_path, capsys, way):
    source, message, in_the_kit = IN_USE[way]
    install("mine-dist", "mine", source)
    assert main(["train", "--reward_funcs", "mine", "--output_dir", str(tmp_path / "run"), *TRAIN]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    with pytest.raises(ContractError, match=in_the_kit):
        check_reward(load_catalogue().rewards["mine"].spec)


WANTED = re.escape('It must return rows such as [{"prompt": "a cat"}].')

#: What prompt sets do: the source of `rows`, and the message.
PROMPT_SETS = {
    "raises": ("def rows(): raise OSError('no file')", "OSError: no file"),
    "raises late": ("def rows():\n    yield {'prompt': 'a cat'}\n    raise OSError('no file')", "OSError: no file"),
    "exits": ("def rows(): raise SystemExit(0)", "SystemExit: 0"),
    "missing import": ("def rows(): import no_such_module", "`pip install no_such_module`"),
    "an error without text": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\ndef rows(): raise Odd",
        "Odd: .*a message that cannot be shown, because it raises ValueError",
    ),
    "none": ("def rows(): pass", f"`rows` returned None. {WANTED}"),
    "no row": ("def rows(): return []", f"`rows` returned no row. {WANTED}"),
    "texts": ("def rows(): return ['a cat']", rf"row 0 is 'a cat' \(str\), no dictionary. {WANTED}"),
    "a text": ("def rows(): return 'a cat'", f"`rows` returned 'a cat'. {WANTED}"),
    "columns instead of rows": ("def rows(): return {'prompt': ['a cat']}", f"`rows` returned .*a cat.*. {WANTED}"),
    "a late number": ("def rows(): return [{'prompt': 'a cat'}, 3]", r"row 1 is 3 \(int\), no dictionary"),
    "no prompt": ("def rows(): return [{'text': 'a cat'}]", "row 0 has the prompt None; every row needs one"),
    "an empty prompt": ("def rows(): return [{'prompt': ' '}]", "row 0 has the prompt ' '; every row needs one"),
    "other columns": (
        "def rows(): return [{'prompt': 'a', 'x': 1}, {'prompt': 'b'}]",
        "row 1 has the columns prompt, and row 0 has prompt, x; all rows must have the same",
    ),
    "a reserved column": (
        "def rows(): return [{'prompt': 'a', 'images': 1}]",
        "row 0 has the column 'images'.*images, prompts, trainer_state, log_metric, log_extra. Rename it",
    ),
    "values that do not go together": ("def rows(): return [{'prompt': 'a', 'x': 1}, {'prompt': 'b', 'x': 'c'}]", "Arrow"),
    "async": ("async def rows(): return []", "`rows` is an async function.*Write `def`"),
    "never ends": ("def rows():\n    while True: yield {'prompt': 'a cat'}", "more than 50 rows. Does its iterable end"),
}  # fmt: skip


@pytest.mark.parametrize("way", PROMPT_SETS)
def test_prompt_sets(install, tmp_path, capsys, monkeypatch, way):
    monkeypatch.setattr("ddpo_plugins.prompt_rows.MAX_ROWS", 50)
    source, message = PROMPT_SETS[way]
    install("mine-dist", "mine", HEAD + source + "\n" + PROMPTS.format("rows"), version="0.3")
    train = [
        "train",
        "--reward_funcs",
        "jpeg_compressibility",
        "--prompts",
        "mine_prompts",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    assert main(train) == 2
    error = capsys.readouterr().err
    assert "ddpo train: Plugin 'mine' (mine-dist 0.3) could not make prompt set 'mine_prompts': " in error
    assert re.search(message, error), error
    assert list(tmp_path.glob("run/*")) == []
    spec = load_catalogue().prompt_sets["mine_prompts"].spec
    if message == "Arrow":  # of the dataset's own
        assert len(check_prompt_set(spec)) == 2
    else:
        with pytest.raises(ContractError, match=f"^Prompt set 'mine_prompts' fails the check 'rows': .*{message}"):
            check_prompt_set(spec)


def test_good_plugins_pass(install):
    source = HEAD + "def score(images, prompts, **columns): return [1.0] * len(images)\n"
    source += REWARD.format("lambda device: score") + DETECTOR.format("lambda device: score")
    install("mine-dist", "mine", source + PROMPTS.format("lambda: [{'prompt': 'a cat', 'x': 1}]"))
    for name in ("mine", "mine-dist"):
        check_plugin(name)
    catalogue = load_catalogue()
    check_reward(catalogue.rewards["mine"].spec)
    check_detector(catalogue.detectors["mine_seen"].spec)
    assert check_prompt_set(catalogue.prompt_sets["mine_prompts"].spec) == [{"prompt": "a cat", "x": 1}]


def test_a_plugin_that_is_not_installed():
    with pytest.raises(
        ContractError, match=r"No installed plugin 'nowhere' offers anything.*`pip install -e .`.*Installed: "
    ):
        check_plugin("nowhere")
