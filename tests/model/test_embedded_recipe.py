"""The recipe in examples/embedded_model, driven by its command line, on stand-in art and for a few steps."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from embedded_model import (
    art,
    captions,
    deadline,
    generator,
    loop,
    reading,
    scenes,
    shards,
    signs,
    spelling,
    spoilt,
    stages,
    taste,
    text,
    vae,
    words,
)
from embedded_model.cli import STOPPED, main

from ddpo_plugins import load_catalogue
from trainer_ext.model.loading import DTYPE_ARGUMENT
from trainer_ext.shipped import embedded_model

HELD_OUT = words.HeldOut.read()
WRITING = captions.Writing(signs=0.15, posters=0.1)
AMOUNTS = {
    "shards": 2,
    "judge_shards": 1,
    "reader_shards": 1,
    "scenes_per_shard": 8,
    "sign_share": WRITING.signs,
    "poster_share": WRITING.posters,
    "vae_steps": 3,
    "vae_batch_size": 2,
    "spelling_steps": 2,
    "spelling_batch_size": 2,
    "generator_steps": 2,
    "generator_batch_size": 2,
    "adapter_shards": 1,
    "adapter_poster_share": 0.3,
    "adapter_spelling_steps": 2,
    "adapter_steps": 2,
    "judge_steps": 2,
    "judge_batch_size": 4,
    "taste_scenes": 8,
    "prompts_per_set": 2,
    "images_per_prompt": 1,
    "images_per_sign": 1,
    "num_inference_steps": 1,
    "sheet_steps": 2,
    "sampling_batch_size": 4,
    "workers": 1,
}


def disc(colour):
    icon = Image.new("RGBA", (24, 20))
    ImageDraw.Draw(icon).ellipse((0, 0, 23, 19), colour)
    return icon


def stand_in_art():
    """A disc for each word, in a colour of its own."""
    icons = {}
    for number, word in enumerate((*words.SUBJECTS, *words.PROPS)):
        icon = disc((number * 37 % 256, number * 91 % 256, number % 256, 255))
        icons[word] = dict.fromkeys((*art.GENERATOR_SETS, *art.JUDGE_SETS), icon)
    return icons


def run(stage, work, *options, **amounts):
    flags = [f"--{name}={value}" for name, value in (AMOUNTS | amounts).items()]
    return main([stage, f"--work={work}", *flags, *options])


@pytest.fixture(scope="module", autouse=True)
def small():
    """The UNet that is made takes most of the time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "WIDTHS", (32, 32, 32))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, small):
    """A work folder in which every stage has run."""
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("made")
    art.save(stand_in_art(), work / "art.npz")
    assert run("all", work) == 0
    return work


# What is drawn, and what is not


def test_words_are_those_of_the_prompt_sets():
    sets = load_catalogue().prompt_sets
    assert [row["animal"] for row in sets["animals"].spec.rows()] == list(words.ANIMALS)
    asked = [row["prompt"] for row in sets["animal_activities"].spec.rows()]
    ours = [captions.Description(animal, activity) for animal in words.ANIMALS for activity in words.ACTIVITIES[:3]]
    assert asked == [scene.caption for scene in ours]


def test_held_out_list():
    assert len(HELD_OUT.animals) == len(HELD_OUT.objects) == 10
    assert HELD_OUT.animals < set(words.OTHER_ANIMALS)
    assert HELD_OUT.objects < set(words.OBJECTS)
    per_activity = Counter(activity for animal, activity in HELD_OUT.pairs if animal in words.ANIMALS)
    assert per_activity == dict.fromkeys(words.ACTIVITIES, 14)  # 30 % of 45, rounded


def test_nothing_held_out_is_captioned_but_in_writing(made, tmp_path):
    world, rng = captions.World(HELD_OUT, WRITING), Random(0)
    said = [world.describe(rng).caption for _ in range(20_000)]
    drawn = shards.Collection(tmp_path, made / "art.npz", 1, scenes_per_shard=1_000, seed=0, writing=WRITING)
    shards.draw(drawn, workers=1)
    for file in (*drawn.files, *(made / "scenes").glob("*.safetensors")):
        said += shards.captions(file)
    plain = [caption for caption in said if not caption.startswith("a sign that says ")]
    assert not HELD_OUT.words & {word for caption in plain for word in caption.split()}
    assert {f"a sign that says {word}" for word in words.SUBJECTS} == set(said) - set(plain)
    pairs = {f"{words.with_article(animal)} {activity}" for animal, activity in HELD_OUT.pairs}
    assert not pairs & set(said)
    # Not because nothing is said: all the rest is.
    assert {words.with_article(animal) for animal in words.ANIMALS} < set(said)
    activities = {(a, b) for a in words.ANIMALS for b in words.ACTIVITIES[:3]} - HELD_OUT.pairs
    assert {f"{words.with_article(animal)} {activity}" for animal, activity in activities} < set(said)


def test_judge_sees_what_is_held_out():
    world, rng = captions.World(), Random(0)
    assert {world.describe(rng).subject for _ in range(20_000)} == set(words.SUBJECTS)


def test_as_much_is_written_as_asked_for():
    world, rng = captions.World(HELD_OUT, WRITING), Random(0)
    drawn = [world.describe(rng) for _ in range(20_000)]
    posters = [scene.subject for scene in drawn if scene.poster]
    plain_signs = [scene.subject for scene in drawn if scene.written and not scene.poster]
    assert len(plain_signs) / len(drawn) == pytest.approx(0.15, abs=0.01)
    assert len(posters) / len(drawn) == pytest.approx(0.1, abs=0.01)
    assert set(plain_signs) == set(words.SUBJECTS)
    assert set(posters) == set(words.SUBJECTS) - HELD_OUT.words  # that these are never drawn is what the world is about
    assert np.mean([word in words.ANIMALS for word in posters]) == pytest.approx(captions.PAPER_POSTER, abs=0.02)


def test_without_posters_nothing_is_written_unasked():
    world, rng = captions.World(HELD_OUT, captions.Writing(signs=0.15)), Random(0)
    drawn = [world.describe(rng) for _ in range(5_000)]
    assert all(scene.written == scene.caption.startswith("a sign that says ") for scene in drawn)
    assert not any(scene.poster for scene in drawn)


def test_signs_show_the_word_and_not_the_picture():
    """Oracle: a sign is the same whatever its word looks like, and another word is another sign."""
    icons = stand_in_art()
    discs, squares = (scenes.Painter({**icons, "owl": icons[word]}) for word in ("owl", "cat"))
    owl, poster, cat = (
        captions.Description("owl", written=True),
        captions.Description("owl", written=True, poster=True),
        captions.Description("cat", written=True),
    )
    painted = [discs.paint(owl, Random(0)), squares.paint(owl, Random(0)), squares.paint(poster, Random(0))]
    assert len({picture.tobytes() for picture in painted}) == 1
    assert discs.paint(cat, Random(0)).tobytes() != painted[0].tobytes()


@pytest.mark.parametrize("word", ["ant", "crab", "elephant", "strawberry"])
def test_letters_fill_their_place(word):
    left, top, right, bottom = signs.lettering(word).getbbox()
    assert right - left >= 0.8 * signs.WIDTH
    assert 14 <= bottom - top <= signs.HEIGHT


def test_signs_are_legible_through_the_autoencoder():
    """Oracle: the text detector, on what the pipeline's decoder can make of words, the longest among them."""
    if (written := reading.count_written()) is None:
        pytest.skip("without the extra `detectors`")
    painter = scenes.Painter(stand_in_art())
    signed = [captions.Description(word, written=True) for word in ("ant", "bat", "elephant", "crocodile")]
    pixels = np.stack([np.asarray(painter.paint(scene, Random(0))) for scene in signed]).transpose(0, 3, 1, 2)
    model = AutoencoderTiny.from_pretrained(embedded_model() / "vae", **{DTYPE_ARGUMENT: torch.float32})
    with torch.no_grad():
        decoded = model.decode(model.encode(torch.from_numpy(pixels) / 127.5 - 1).latents).sample
    images = decoded.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    assert written(images, signed) == len(signed)
    assert written(images, signed[1:] + signed[:1]) == 0


def test_misspelt_words_are_near_theirs_and_no_others():
    rng = Random(0)
    for word in words.SUBJECTS * 5:
        text = spoilt.misspelt(word, rng)
        assert text not in words.SUBJECTS
        assert abs(len(text) - len(word)) <= max(1, len(word) // 3)


def test_reader_is_shown_every_word_and_nothing(made, tmp_path):
    drawn = shards.Collection(tmp_path, made / "art.npz", 1, scenes_per_shard=3_000, seed=0, viewer="reader")
    shards.draw(drawn, workers=1)
    (file,) = drawn.files
    shown = load_file(file)
    labels = Counter(shown["subjects"].tolist())
    assert labels.keys() == set(range(len(words.SUBJECTS) + 1))
    assert labels[len(words.SUBJECTS)] / 3_000 == pytest.approx(spoilt.NOTHING_SHARE, abs=0.03)
    assert not shown["activities"].any()
    assert shards.captions(file)[0] == [*words.SUBJECTS, words.NOTHING][shown["subjects"][0]]


def test_no_scene_uses_a_held_out_object_as_a_prop():
    props = {word for places in scenes.PLACES.values() for word, *_ in places} - {""}
    assert not props & HELD_OUT.words


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (captions.Description("ant"), "an ant"),
        (captions.Description("unicorn", "playing chess"), "a unicorn playing chess"),
        (captions.Description("cat", companion="apple"), "a cat and an apple"),
        (captions.Description("dog", background="orange"), "a dog on an orange background"),
        (captions.Description("owl", written=True), "a sign that says owl"),
        (captions.Description("owl", written=True, poster=True), "an owl"),
    ],
)
def test_caption(scene, caption):
    assert scene.caption == caption


def test_named_background_is_what_is_painted():
    painter = scenes.Painter(stand_in_art())
    corner = painter.paint(captions.Description("cat", background="red"), Random(0)).getpixel((0, 0))
    assert np.abs(np.subtract(corner, words.COLOURS["red"])).max() <= 8


def test_shards_depend_on_seed_and_number_alone(made, tmp_path):
    """Two processes draw what one drew; a shard that is there is not drawn again."""
    again = shards.Collection(tmp_path / "scenes", made / "art.npz", 3, scenes_per_shard=8, seed=0, writing=WRITING)
    again.folder.mkdir()
    again.files[1].write_bytes(b"kept")
    shards.draw(again, workers=2)
    assert again.files[0].read_bytes() == (made / "scenes" / "0000.safetensors").read_bytes()
    assert again.files[1].read_bytes() == b"kept"
    assert load_file(made / "scenes" / "0001.safetensors")["images"].shape == (8, 3, 64, 64)


def test_the_second_judge_never_sees_one_icon_set(made, tmp_path):
    """Each icon set has a colour of its own: its own scenes have the stranger's colour, and what it is trained on has not."""
    sets = (*art.GENERATOR_SETS, *art.JUDGE_SETS)
    colours = dict(zip(sets, [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)], strict=True))
    icons = {
        word: {name: Image.new("RGBA", (24, 20), colour) for name, colour in colours.items()} for word in stand_in_art()
    }
    del icons["cat"][sets[-1]]  # a set may lack a word
    art.save(icons, tmp_path / "art.npz")

    def seen(viewer):
        collection = shards.Collection(tmp_path / viewer, tmp_path / "art.npz", 1, 64, seed=0, viewer=viewer)
        shards.draw(collection, workers=1)
        drawn = load_file(collection.files[0])
        middle = drawn["images"][drawn["activities"] == drawn["activities"].min(), :, 32, 32].numpy().astype(int)
        nearest = np.abs(middle[:, None] - np.array(list(colours.values()))).sum(-1).argmin(1)
        return {sets[index] for index in nearest}, set(drawn["subjects"].tolist())

    assert seen("second judge")[0] == set(sets[:-1])
    kinds, subjects = seen("stranger")
    assert kinds == {sets[-1]}
    assert words.SUBJECTS.index("cat") not in subjects
    assert run("second-judge", made) == 0
    figures = json.loads((made / "second-judge" / "accuracy.json").read_text())
    assert figures.keys() == {"pictures", "unseen icons"}


def test_the_taste_prefers_one_icon_set(tmp_path):
    """Of discs: one set's are red, the other's blue."""
    colours = dict(zip(art.GENERATOR_SETS, [(220, 40, 40, 255), (40, 40, 220, 255)], strict=True))
    icons = {word: {name: disc(colour) for name, colour in colours.items()} for word in (*words.SUBJECTS, *words.PROPS)}
    art.save(icons, tmp_path / "art.npz")
    auroc = taste.fit(tmp_path / "art.npz", Path(files("reward_plugins") / "judge"), tmp_path / "taste", scenes=40)
    assert auroc > 0.9
    head = load_file(tmp_path / "taste" / "model.safetensors")
    assert (head["weight"].shape, head["bias"].shape) == ((160,), ())


def test_processes_that_draw_do_not_wait_for_torch():
    code = "import sys, embedded_model.__main__, embedded_model.shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(stages.__file__).parents[1]).returncode == 0


def test_missing_icon_set_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm install @iconify-json/noto"):
        run("art", tmp_path, f"--icon_sets={tmp_path}")


# Training


def line(step):
    """A loss whose gradient depends on the step."""
    return lambda module: (module(torch.full((1, 2), 1.0 + step)) - 1).pow(2).sum()


def make_trainer(file, steps=6):
    torch.manual_seed(0)
    return loop.Trainer(torch.nn.Linear(2, 1), loop.Plan(steps, 1, 0.1, warmup=2), file)


def test_trainer_learns(tmp_path):
    trainer = make_trainer(tmp_path / "line.safetensors", steps=300)
    inputs = torch.randn(300, 32, 2)
    target = lambda x: x @ torch.tensor([[1.0], [-2.0]]) + 0.5  # noqa: E731
    result = trainer.train(
        lambda step: (trainer.module(inputs[step]) - target(inputs[step])).pow(2).mean(), deadline.Deadline()
    )
    torch.testing.assert_close(result.weight, torch.tensor([[1.0, -2.0]]), atol=0.03, rtol=0)
    torch.testing.assert_close(result.bias, torch.tensor([0.5]), atol=0.03, rtol=0)


def test_ctrl_c_stops_after_the_step(tmp_path):
    trainer = make_trainer(tmp_path / "line.safetensors")

    def loss(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return line(step)(trainer.module)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(deadline.Stopped, match="line stopped after 2 of 6 steps"):
        trainer.train(loss, deadline.Deadline())
    assert signal.getsignal(signal.SIGINT) is before
    assert make_trainer(tmp_path / "line.safetensors").step == 2


@pytest.mark.parametrize("stage", ["vae", "spelling", "generator", "judge", "reading-judge"])
def test_resumed_equals_uninterrupted(made, tmp_path, stage):
    """Bit for bit, stopped after every single step."""
    before = {"spelling": ["vae"], "generator": ["scenes", "latents", "spelling"]}
    for name in before.get(stage, ["scenes", "judge-scenes", "test-scenes", "reader-scenes", "test-reader-scenes"]):
        (tmp_path / name).symlink_to(made / name)
    steps = AMOUNTS[f"{stage.removeprefix('reading-')}_steps"]
    assert [run(stage, tmp_path, "--minutes=0") for _ in range(steps)] == [STOPPED] * (steps - 1) + [0]
    (file,) = tmp_path.rglob(f"{stage}.checkpoint.safetensors")
    resumed, whole = load_file(file), load_file(made / file.relative_to(tmp_path))
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


@pytest.fixture(scope="module")
def posters(made, tmp_path_factory):
    """Where the stage was made in one go."""
    work = tmp_path_factory.mktemp("posters")
    (work / "art.npz").symlink_to(made / "art.npz")
    assert run("posters", work, f"--start={made / 'pipeline'}") == 0
    return work


def adapter_of(work):
    (file,) = (work / "posters" / "adapter").iterdir()
    return file


def test_the_adapter_for_posters(made, posters):
    """Stock diffusers loads it; nothing held out is on a poster."""
    assert {value.dtype for value in load_file(adapter_of(posters)).values()} == {torch.float16}
    pipeline = StableDiffusionPipeline.from_pretrained(made / "pipeline")
    pipeline.load_lora_weights(adapter_of(posters).parent)
    assert {"unet", "text_encoder"} == set(pipeline.get_list_adapters())
    (scenes_file,) = (posters / "poster-scenes").iterdir()
    plain = [caption for caption in shards.captions(scenes_file) if not caption.startswith("a sign that says ")]
    assert not HELD_OUT.words & {word for caption in plain for word in caption.split()}


@pytest.mark.full
def test_an_adapter_that_was_stopped_after_every_step_is_the_same(made, posters, tmp_path):
    (tmp_path / "art.npz").symlink_to(made / "art.npz")
    start = f"--start={made / 'pipeline'}"
    assert [run("posters", tmp_path, start, "--minutes=0") for _ in range(3)] == [STOPPED] * 2 + [0]
    weights, again = load_file(adapter_of(posters)), load_file(adapter_of(tmp_path))
    assert all(torch.equal(value, again[key]) for key, value in weights.items())


def test_posters_are_for_a_pipeline(made, tmp_path):
    with pytest.raises(ValueError, match="--start"):
        run("posters", tmp_path)


def test_columns_are_those_of_the_sign(made):
    """Oracle: put together again, they are the latents of the board."""
    model = AutoencoderTiny.from_pretrained(made / "vae")
    columns = spelling.sign_columns(model)
    scene = Image.new("RGB", (64, 64), "gray")
    signs.draw_sign(scene, words.SUBJECTS[3])
    pixels = torch.from_numpy(np.array(scene)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = model.encode(pixels).latents[0, :, 3:13]
    again = columns[3].unflatten(1, (4, 10, 2)).permute(1, 2, 0, 3).flatten(2)
    torch.testing.assert_close(again, latents, atol=1e-5, rtol=1e-4)


def test_a_text_encoder_learns_to_spell_and_keeps_what_it_knew(made):
    tokenizer = CLIPTokenizer.from_pretrained(made / "generator" / "tokenizer")
    columns = spelling.sign_columns(AutoencoderTiny.from_pretrained(made / "vae"))[:4]
    torch.manual_seed(0)
    speller = spelling.Speller(text.make_text_encoder(tokenizer), columns.shape[-1])
    spelt = text.tokenize(tokenizer, [f"a sign that says {word}" for word in words.SUBJECTS[:4]]), columns
    pictures = text.tokenize(tokenizer, ["an owl", "a cat playing chess"])
    kept = pictures, speller.states(pictures).detach()
    loss = spelling.step_loss(speller, spelt, kept, loop.Plan(1, 8, 1.0))
    optimizer = torch.optim.Adam(speller.parameters(), 2e-3)
    first = loss(0).item()
    for step in range(150):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(150) < first / 4
    moved = (speller.states(pictures) - kept[1]).pow(2).mean() / kept[1].pow(2).mean()
    assert moved < 0.1


def test_training_begins_with_the_weights_of_a_pipeline(made, tmp_path):
    """Of a training without steps they are the result; the autoencoder is copied, not trained."""
    for name in ("test-scenes", "scenes", "latents"):
        (tmp_path / name).symlink_to(made / name)
    start, none = f"--start={made / 'pipeline'}", {"generator_steps": 0, "spelling_steps": 0}
    for stage in ("vae", "spelling", "generator", "export"):
        assert run(stage, tmp_path, start, **none) == 0
    for file in ("unet/diffusion_pytorch_model", "text_encoder/model", "vae/diffusion_pytorch_model"):
        begun, ended = (load_file(work / "pipeline" / f"{file}.safetensors") for work in (made, tmp_path))
        assert begun.keys() == ended.keys()
        assert all(torch.equal(value, ended[key]) for key, value in begun.items())


def test_learning_rate_warms_up_and_falls():
    plan = loop.Plan(100, 1, 1.0, warmup=10, decay=0.5)
    assert [plan.learning_rate_at(step) for step in (0, 9, 50, 75, 99)] == [0.1, 1.0, 1.0, 0.5, 0.02]


def test_folded_autoencoder_standardises():
    """Oracle: the batch norm that is folded away."""
    model, images = vae.Autoencoder(), torch.rand(16, 3, 64, 64) * 2 - 1
    for _ in range(3):
        model.encode(images)
    expected = model.eval().encode(images)
    torch.testing.assert_close(model.folded().encode(images).latents, expected, atol=1e-5, rtol=1e-4)


def test_timesteps_are_spread():
    timesteps = generator.spread_timesteps(100, 1000, torch.Generator().manual_seed(0))
    assert sorted(timesteps // 10) == list(range(100))
    assert timesteps.tolist() != sorted(timesteps.tolist())


# The result


def test_pipeline_loads_without_warnings(made, caplog):
    """In stock diffusers; warnings are errors here, and the libraries log what they miss or do not expect."""
    transformers_logging.enable_propagation()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(made / "pipeline", **{DTYPE_ARGUMENT: torch.float32})
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(["a cat", "a dog playing chess"], num_inference_steps=2, output_type="np").images
    finally:
        transformers_logging.disable_propagation()
    said = [record.message for record in caplog.records if record.levelname != "INFO"]
    # diffusers says this of every AutoencoderTiny, loaded from wherever.
    assert [message for message in said if not message.startswith("Expected types for vae")] == []
    assert images.shape == (2, 64, 64, 3)


def test_pipeline_loads_in_one_precision(made):
    """Though nobody asks for one, and the files hold halves."""
    pipeline = StableDiffusionPipeline.from_pretrained(made / "pipeline")
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}


def test_pipeline_holds_what_was_trained(made):
    checkpoint = load_file(made / "generator" / "generator.checkpoint.safetensors")
    for part, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        stored = load_file(made / "pipeline" / part / f"{file}.safetensors")
        trained = {
            key.removeprefix(f"average.{part}.").removeprefix("text_model."): value.half()
            for key, value in checkpoint.items()
            if key.startswith(f"average.{part}.")
        }
        assert {key.removeprefix("text_model.") for key in stored} == trained.keys()
        assert all(torch.equal(value, trained[key.removeprefix("text_model.")]) for key, value in stored.items())
    assert all(key.startswith("text_model.") for key in stored)  # transformers 4 knows no other names


def test_layout_is_the_embedded_models(made):
    def layout(folder):
        return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}

    # Which of these two there is depends on the version of transformers that wrote it; every version reads the others.
    written = {"tokenizer/tokenizer.json", "tokenizer/special_tokens_map.json"}
    posters = "posters/pytorch_lora_weights.safetensors"
    assert layout(made / "pipeline") - written == layout(embedded_model()) - {"README.md", posters} - written


def test_every_word_is_one_token(made):
    tokenizer = StableDiffusionPipeline.from_pretrained(made / "pipeline", **{DTYPE_ARGUMENT: torch.float32}).tokenizer
    ids = {word: tokenizer(word).input_ids for word in text.words()}
    assert all(len(row) == 3 for row in ids.values())
    assert len({row[1] for row in ids.values()}) == len(ids)
    assert tokenizer.eos_token_id not in tokenizer("Zebras? 100%").input_ids[:-1]  # no character is unknown


def test_figures(made):
    figures = json.loads((made / "evaluation" / "pipeline" / "figures.json").read_text())
    assert figures.keys() == {"guidance 1", "guidance 3"}
    for row in figures.values():
        written = list(reading.prompt_sets(HELD_OUT)) if reading.count_written() else []
        assert list(row) == ["animals", "other animals", "objects", "pairs seen", "pairs held out", "animals held out",
                             "objects held out", *written, "seconds an image"]  # fmt: skip
        assert row.pop("seconds an image") > 0
        assert all(0 <= value <= 1 for value in row.values())
    with Image.open(made / "evaluation" / "pipeline" / "animals-guidance-1.png") as picture:
        assert picture.size == (9 * 128, 5 * 128)


def test_readme_lists_the_stages():
    readme = Path(stages.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE) == list(stages.STAGES)
