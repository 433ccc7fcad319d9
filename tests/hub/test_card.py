"""The card of an adapter: what it says, what the Hub makes of it, and what stays of what a person wrote."""

import json
import re
from html.parser import HTMLParser

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from support.trainers import CAT_AND_DOG, RunFolder, redness, returning

from trainer_ext.errors import ConfigError
from trainer_ext.file_names import KOHYA_FILE, LORA_FILE
from trainer_ext.hub.card import adapter_card, adapter_files
from trainer_ext.hub.cards.markdown import code, escaped, one_line
from trainer_ext.hub.cards.readme import BEGIN, END, merged_readme
from trainer_ext.runs.measures.verdict import Verdict, VerdictKind
from trainer_ext.runs.summary import PairedFigure, RunSummary


def change_setup(folder, **changes):
    """Change the record of how a run was made."""
    file = folder / "run.json"
    setup = json.loads(file.read_text())
    setup["runs"][-1].update(changes)
    file.write_text(json.dumps(setup))


def change_prompts(folder, prompts):
    """Give the fixed samples other prompts."""
    for file in folder.glob("samples/*.parquet"):
        table = pq.read_table(file)
        column = table.column_names.index("prompt")
        pq.write_table(table.set_column(column, "prompt", pa.array(prompts)), file)


def text_of(card):
    return ModelCard(card).text


def test_what_it_says_of_the_base_and_the_scheduler(run):
    assert "quantised" not in text_of(adapter_card(RunFolder(run), "user/cats", None))
    change_setup(
        run, sampler="own", base={"dtype": "float32", "fingerprint": "0", "quantization": {"quant_method": "torchao"}}
    )
    text = text_of(adapter_card(RunFolder(run), "user/cats", None))
    assert "the base's frozen weights were quantised (torchao;" in text
    assert "by the base's own scheduler, as in training" in text
    assert "`eta`" not in text


def test_the_front_matter(run, loopback, monkeypatch):
    change_setup(run, model="user/base")
    folder = RunFolder(run)
    card = ModelCard(
        adapter_card(
            folder, "user/cats", "user/cats-images", base_licence={"license": "other", "license_name": "openrail"}
        )
    )
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", loopback.url)
    card.validate()
    data = card.data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("user/base", "adapter")
    assert (data["license"], data["license_name"], "license_link" in data) == ("other", "openrail", False)
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert data["datasets"] == ["user/cats-images"]
    assert {"text-to-image", "diffusers", "diffusers-training", "lora", "template:sd-lora", "stable-diffusion"} <= set(
        data["tags"]
    )
    assert "instance_prompt" not in data
    files = adapter_files(folder)
    assert [entry["output"]["url"] in files for entry in data["widget"]] == [True, True]
    assert [entry["text"] for entry in data["widget"]] == ["a cat", "a dog"]
    before, after = card.data.eval_results
    figure = RunSummary.of(folder).paired
    assert (before.metric_value, after.metric_value) == (round(figure.before, 6), round(figure.after, 6))
    assert not before.verified


def test_the_files(run):
    files = adapter_files(RunFolder(run))
    assert set(files) == {
        LORA_FILE,
        "run.json",
        "reward_curve.png",
        "before_after.png",
        *(f"images/{moment}-{index:02d}.png" for moment in ("before", "after") for index in range(2)),
    }
    assert files["images/after-01.png"].read_bytes() == (run / "samples" / "update-00002" / "01.png").read_bytes()
    assert files["images/before-01.png"].read_bytes() == (run / "samples" / "update-00000" / "01.png").read_bytes()
    (run / KOHYA_FILE).write_bytes(b"exported")
    assert KOHYA_FILE in adapter_files(RunFolder(run))
    assert f"`{KOHYA_FILE}`" in adapter_card(RunFolder(run), "user/cats")


def test_the_weights_of_a_checkpoint(run):
    checkpoint = run / "checkpoint-1"
    assert adapter_files(RunFolder(run), checkpoint)[LORA_FILE] == checkpoint / LORA_FILE
    assert "These are the weights after 1 updates" in adapter_card(RunFolder(run), "user/cats", checkpoint=checkpoint)
    (run / LORA_FILE).unlink()
    assert adapter_files(RunFolder(run))[LORA_FILE] == run / "checkpoint-2" / LORA_FILE
    with pytest.raises(ConfigError, match="holds no adapter or pipeline"):
        adapter_files(RunFolder(run / "samples"))


def test_every_picture_of_the_card_is_in_the_repository(run):
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(pictures) == 5
    assert set(pictures) <= set(adapter_files(RunFolder(run)))
    assert "<Gallery />" in text


def test_what_the_card_says(run):
    judge = {
        "plugin": "judge",
        "distribution": "judges",
        "version": "1.2",
        "code": "abc",
        "options": {"model": "org/vlm", "revision": "0f0f"},
        "weight": 2.0,
    }
    command = "ddpo train --prompts 'a `b`'"
    change_setup(run, rewards={"judge": judge}, detectors={"text": {"weight": 0.0}}, command=command, preset=["lora/x"])
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    figure = RunSummary.of(RunFolder(run)).paired
    for said in (
        "| `judge` | plugin `judge` of judges 1.2, code `abc` | `model=org/vlm`, `revision=0f0f` | 2 |",
        f"| mean difference | {figure.difference:+.4g} |",
        f"| {figure.low:+.4g} to {figure.high:+.4g} |",
        "| `num_inference_steps` | `2` |",
        "| `sampler` | `ddim` |",
        "| `eta` | `1.0` |",
        "42 for the run; 0 to 1 for the pictures",
        "| preset | `lora/x` |",
        "| `text` | – | – | 0 |",
        f"```bash\n{command}\n```",
        "https://arxiv.org/abs/2305.13301",
    ):
        assert said in text, said


def test_the_sampler_and_the_option_that_it_takes(run):
    """Flow matching has no `eta`. Early runs recorded a sampler only if it was asked for."""
    change_setup(run, sampler="flow_sde")
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    assert "| `sampler` | `flow_sde` |\n| `noise_level` | `0.7` |" in text
    assert "`eta`" not in text
    change_setup(run, sampler=None)
    assert "| `sampler` |" not in text_of(adapter_card(RunFolder(run), "user/cats"))


def test_a_verdict_is_shown(run, monkeypatch):
    said = Verdict(VerdictKind.OVER_OPTIMISED, "the <reward> was gamed", "a rule", {"held-out | gold": -0.3})
    summary = RunSummary(verdict=said)
    monkeypatch.setattr(RunSummary, "of", lambda folder: summary)
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    assert "Over-optimisation: the &#60;reward&#62; was gamed" in text
    assert "| held-out &#124; gold | -0.3 |" in text
    assert "Rule: a rule" in text
    assert "No reward was measured on the same prompts and seeds" in text


def test_what_was_not_trained_on_and_the_checkpoint_to_use(run, monkeypatch):
    measured = RunSummary(
        held_out={"rewards/clip_score": PairedFigure(0.25, 0.2, -0.07, -0.03, 16)},
        detections={"detectors/a|b": PairedFigure(0.0, 0.5, float("nan"), float("nan"), 1)},
        chosen_checkpoint=run / "checkpoint-1",
    )
    monkeypatch.setattr(RunSummary, "of", lambda folder: measured)
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    assert "| reward `clip_score` | 0.25 | 0.2 | -0.05 | -0.07 to -0.03 | 16 |" in text
    assert "| detector <code>a&#124;b</code> | 0 | 0.5 | +0.5 | – | 1 |" in text
    assert "the one to use is `checkpoint-1`." in text
    chosen = text_of(adapter_card(RunFolder(run), "user/cats", checkpoint=run / "checkpoint-1"))
    assert "the one to use is `checkpoint-1`, whose weights these are." in chosen


def test_an_evaluation_is_on_the_card(make_trainer, tmp_path):
    held_out = {"eval_dataset": CAT_AND_DOG, "eval_reward_funcs": [redness], "detectors": [returning(0.25, 0.75)]}
    trainer = make_trainer(**held_out, eval_strategy="epoch")
    trainer.train()
    trainer.save_model()
    text = text_of(adapter_card(RunFolder(tmp_path / "run"), "user/cats"))
    figure = RunSummary.of(RunFolder(tmp_path / "run")).held_out["rewards/redness"]
    assert f"| reward `redness` | {figure.before:.4g} | {figure.after:.4g} | {figure.difference:+.4g} | " in text
    assert "| detector `function` | 0.5 | 0.5 | +0 | +0 to +0 | 2 |" in text


def test_what_was_not_measured_is_left_out(run):
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    for absent in ("| measured |", "Over-optimisation", "the one to use"):
        assert absent not in text


def without_pictures(folder):
    for file in folder.glob("samples/*.parquet"):
        file.unlink()


def without_the_first(folder):
    (folder / "samples" / "update-00000.parquet").unlink()


@pytest.mark.parametrize(("change", "pictures"), [(without_pictures, 1), (without_the_first, 3)])
def test_runs_without_pictures(run, change, pictures):
    change(run)
    text = text_of(adapter_card(RunFolder(run), "user/cats"))
    assert len(re.findall(r"!\[[^]]*\]\(", text)) == pictures
    assert ("<Gallery />" in text) == (pictures > 1)
    assert "No reward was measured on the same prompts" in text


# ---- licences ----


def base_folder(tmp_path, front_matter):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(f"---\n{front_matter}\n---\n# A base\n")
    return str(tmp_path / "base")


@pytest.mark.parametrize(
    ("front_matter", "licence", "said"),
    [
        ("license: mit", {"license": "mit"}, "base, whose licence applies to them: mit."),
        (
            "license: other\nlicense_name: rail\nlicense_link: https://x.org/l",
            {"license": "other", "license_name": "rail", "license_link": "https://x.org/l"},
            "[rail](https://x.org/l)",
        ),
        ("tags: [x]", {}, "base. Its licence applies to them."),
        ("license: [", {}, "base. Its licence applies to them."),
    ],
)
def test_the_licence_is_that_of_the_base(run, tmp_path, front_matter, licence, said):
    change_setup(run, model=base_folder(tmp_path, front_matter))
    card = ModelCard(adapter_card(RunFolder(run), "user/cats"))
    data = card.data.to_dict()
    assert {name: value for name, value in data.items() if name.startswith("license")} == licence
    assert "base_model" not in data
    assert said in " ".join(card.text.split())
    assert str(tmp_path) not in card.text


@pytest.mark.parametrize(
    ("model", "base", "licence"),
    [
        ("embedded", None, "apache-2.0"),
        ("user/base", "user/base", None),
        ("/gone/models--user--base/snapshots/0123", "user/base", None),
        ("/gone/folder", None, None),
        ("", None, None),
    ],
)
def test_bases_by_their_names(run, model, base, licence):
    change_setup(run, model=model)
    card = ModelCard(adapter_card(RunFolder(run), "user/cats"))
    assert (card.data.base_model, card.data.license) == (base, licence)
    assert "/gone" not in card.content


# ---- what a person wrote ----

OURS = {"license": "mit", "tags": ["ddpo"], "library_name": "diffusers"}


def test_a_persons_words_stay(run):
    first = adapter_card(RunFolder(run), "user/cats")
    edited = first.replace(BEGIN, f"I trained this on a train.\n\n{BEGIN}") + "\nAsk me anything.\n"
    second = adapter_card(RunFolder(run), "user/cats", existing=edited)
    assert second == edited.replace("anything.\n", "anything.\n")
    change_setup(run, command="another command")
    third = adapter_card(RunFolder(run), "user/cats", existing=second)
    assert "another command" in third
    assert third.count(BEGIN) == third.count(END) == 1
    assert third.index("on a train") < third.index(BEGIN) < third.index(END) < third.index("Ask me anything.")


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (None, "{new}"),
        ("", "{new}"),
        ("Mine", "Mine\n\n{new}"),
        ("\ufeff---\nlicense: mit\n---\nMine", "Mine\n\n{new}"),
        (f"above\n{BEGIN}\nold\n{END}\nbelow", "above\n\n{new}\n\nbelow"),
        (f"above\r\n{BEGIN}\r\nold\r\n{END}\r\nbelow", "above\n\n{new}\n\nbelow"),
        (f"above\n{BEGIN}\nmine", "above\n\nmine\n\n{new}"),  # the end was removed
        (f"mine\n{END}\nbelow", "mine\n\nbelow\n\n{new}"),
        (f"{BEGIN}\nmine\n{BEGIN}\nold\n{END}\nbelow", "mine\n\n{new}\n\nbelow"),
        (f"{BEGIN}\nold\n{END}\nmine\n{BEGIN}\nold\n{END}", "{new}\n\nmine"),
    ],
)
def test_only_our_part_is_replaced(existing, expected):
    written = merged_readme(OURS, "new", existing)
    text = re.sub(r"\n{3,}", "\n\n", ModelCard(written).text)
    assert text == expected.format(new=f"{BEGIN}\n\nnew\n\n{END}") + "\n"
    assert merged_readme(OURS, "new", written) == written


RESULT = {
    "task": {"type": "text-to-image"},
    "dataset": {"type": "x", "name": "PickScore"},
    "metrics": [{"type": "m", "value": 1}],
}


@pytest.mark.parametrize(
    ("theirs", "merged"),
    [
        ({"license": "openrail", "license_link": "l"}, {"license": "openrail", "license_link": "l"}),
        ({"language": "de", "inference": False}, {"language": "de", "inference": False, "license": "mit"}),
        ({"tags": ["anime", "ddpo"]}, {"tags": ["ddpo", "anime"]}),
        ({"tags": "anime"}, {"tags": ["ddpo", "anime"]}),
        ({"library_name": "peft"}, {"library_name": "diffusers"}),
    ],
)
def test_what_a_person_changed_in_the_front_matter(theirs, merged):
    existing = merged_readme({}, "old", f"---\n{json.dumps(theirs)}\n---\n")
    data = ModelCard(merged_readme(OURS, "new", existing)).data.to_dict()
    assert {name: data[name] for name in merged} == merged


@pytest.mark.parametrize("broken", ["license: [", "- a list", "text"])
def test_front_matter_that_cannot_be_read(broken, caplog):
    written = merged_readme(OURS, "new", f"---\n{broken}\n---\nMine\n")
    assert "left out" in caplog.text
    assert ModelCard(written).data.license == "mit"
    assert "Mine" in written


def test_evaluations_of_others_stay(run):
    card = adapter_card(RunFolder(run), "user/cats")
    edited = ModelCard(card)
    index = edited.data.to_dict()["model-index"]
    edited = merged_readme({"model-index": [{"name": "cats", "results": [*index[0]["results"], RESULT]}]}, "", card)
    results = ModelCard(adapter_card(RunFolder(run), "user/cats", existing=edited)).data.eval_results
    assert [result.dataset_name for result in results].count("PickScore") == 1
    assert len(results) == 3


# ---- prompts and names that look like something else ----

HOSTILE = [
    "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "a | b || c",
    "`code` ``` ~~~",
    "# title\n\n---\nlicense: mit\n---\n- list",
    "[click](javascript:alert(1)) ![x](http://x/y.png) <http://x.org> www.x.org https://x.org a@b.org @user",
    "**bold** _it_ ~~gone~~ $$x^2$$ \\\\(y\\\\) &lt; &amp; &#60;",
    f"{BEGIN} {END} <!-- <Gallery />",
    "{{ 7 * 7 }} {% raw %} {# x #}",
    "reversed \u202e text \u200b \x07 \u2028 next",
    "emoji 👩‍👩‍👧 and 猫",
    "'quoted' \"twice\" C:\\path",
]


class Page(HTMLParser):
    """The elements of a page, and the text of its table cells."""

    def __init__(self, markdown):
        super().__init__()
        self.elements, self.cells, self.in_cell = [], [], False
        self.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(value for name, value in attrs if name in ("href", "src"))))
        if tag == "td":
            self.cells.append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag != "td"

    def handle_data(self, data):
        if self.in_cell:
            self.cells[-1] += data


def same(card):
    return [element for element in Page(text_of(card)).elements if element[0] != "code"]


@pytest.mark.parametrize("prompt", HOSTILE)
def test_prompts_are_only_text(run, prompt):
    plain = adapter_card(RunFolder(run), "user/cats")
    change_prompts(run, ["a cat", prompt])
    card = adapter_card(RunFolder(run), "user/cats")
    assert one_line(prompt) in Page(text_of(card)).cells
    assert same(card) == same(plain)
    assert ModelCard(card).data.widget[1]["text"] == one_line(prompt)
    assert ModelCard(card).data.to_dict().keys() == ModelCard(plain).data.to_dict().keys()
    change_prompts(run, [prompt, "a cat"])  # the first one is in the code that loads the adapter
    change_setup(run, command=prompt)
    card = adapter_card(RunFolder(run), "user/cats")
    text = text_of(card)
    assert text.count(BEGIN) == text.count(END) == text.count("\n<Gallery />\n") == 1
    assert adapter_card(RunFolder(run), "user/cats", existing=card) == card
    snippet = re.search(r"```python\n(.*?)\n```\n", text, re.DOTALL)[1]
    calls = []
    exec(
        snippet.splitlines()[-1],
        {"pipeline": lambda *args, **kwargs: calls.append(args) or type("", (), {"images": [0]})},
    )
    assert calls == [(prompt,)]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_options_are_only_text(run, name):
    reward = {"plugin": name, "distribution": name, "version": name, "options": {name: name}, "weight": 1.0}
    change_setup(run, rewards={name: reward}, detectors={name: {"weight": 0.0}}, options={name: name}, device=name)
    card = adapter_card(RunFolder(run), "user/cats")
    change_setup(
        run,
        rewards={"x": dict.fromkeys(reward, "x") | {"options": {"x": "x"}, "weight": 1.0}},
        detectors={"x": {"weight": 0.0}},
        options={"x": "x"},
        device="x",
    )
    assert same(card) == same(adapter_card(RunFolder(run), "user/cats"))
    assert one_line(name) in Page(text_of(card)).cells


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_means_itself(text):
    for markdown in (escaped(text), code(text)):
        page = Page(f"| x |\n|-|\n| {markdown} |\n")
        assert page.cells[-1].strip() == one_line(text)
