"""Aesthetic score and similarity rewards, on tiny random models that load like the real ones."""

import inspect
import pickle
import random

import pytest
import torch
from PIL import Image
from support import plain_clip
from support.stand_ins import HEAD_KEYS, LAYERS, save_clip, save_head
from transformers import CLIPTokenizer

from ddpo_plugins import PluginError, load_catalogue
from trainer_ext import reward_from_plugin

CATALOGUE = load_catalogue()
SIMILARITIES = ["clip_score", "pick_score", "hps_v2"]
PROMPTS = ["a cat", "two dogs", "a turtle playing chess", "a house", "a wolf", "a sign that says cat"]


def noise(size, seed):
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))


@pytest.fixture(scope="module")
def images():
    """Six images, not all square, larger and smaller than what the model sees."""
    sizes = [(32, 32), (64, 64), (96, 48), (40, 80), (24, 16), (33, 57)]
    return [noise(size, seed).resize(size) for seed, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder and the weights in it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    return folder, save_clip(folder, projection_dim=768)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    return folder, save_head(folder)


@pytest.fixture
def build(clip, head):
    def build(name, **options):
        stand_ins = {
            "model": str(clip[0]),
            **({"head": str(head[0])} if name == "aesthetic" else {"processor": str(clip[0])}),
        }
        return reward_from_plugin(name, catalogue=CATALOGUE, **{**stand_ins, **options}).function

    return build


def token_ids(prompt, folder):
    return CLIPTokenizer.from_pretrained(folder)(prompt)["input_ids"]


# Against a separate computation


def test_aesthetic_is_the_head_on_clips_embedding(build, clip, head, images):
    expected = [plain_clip.head(head[1], plain_clip.embed_image(clip[1], image), HEAD_KEYS) for image in images]
    rewards = build("aesthetic")(images=images, prompts=PROMPTS)
    assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert max(expected) - min(expected) > 1e-2, "different images have different scores"


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_is_the_scaled_cosine(build, clip, images, name):
    folder, state = clip
    scale = state["logit_scale"].exp().item()
    expected = [
        scale * (plain_clip.embed_image(state, image) @ plain_clip.embed_text(state, token_ids(prompt, folder))).item()
        for image, prompt in zip(images, PROMPTS, strict=True)
    ]
    assert build(name)(images=images, prompts=PROMPTS) == pytest.approx(expected, abs=1e-5 * scale)
    assert max(expected) - min(expected) > 1e-3 * scale


def test_texts_end_where_the_model_does(build, clip, images):
    """The stand-in reads 16 tokens, CLIP 77: the first 14 words of a long prompt, and nothing of what follows."""
    folder, state = clip
    words = ["cat", "dog"] * 20
    (kept,) = {tuple(token_ids(" ".join(words[:count]), folder)[:15]) for count in (20, 30)}
    ids = [*kept, token_ids("", folder)[-1]]
    expected = state["logit_scale"].exp() * plain_clip.embed_image(state, images[0]) @ plain_clip.embed_text(state, ids)
    long = [" ".join(words), " ".join(words[:30]) + " chess"]
    assert build("clip_score")(images=images[:1] * 2, prompts=long) == pytest.approx([expected.item()] * 2, abs=1e-3)


@pytest.mark.parametrize("name", ["aesthetic", *SIMILARITIES])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_show(build, images, name, batch_size):
    rewards = build(name)(images=images, prompts=PROMPTS)
    assert build(name, batch_size=batch_size)(images=images, prompts=PROMPTS) == pytest.approx(rewards, rel=1e-4)


def test_no_graph_is_kept(build, images, monkeypatch):
    modes = []
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(
        torch.nn.Linear, "forward", lambda self, x: (modes.append(torch.is_grad_enabled()), forward(self, x))[1]
    )
    for name in ("aesthetic", "clip_score"):
        rewards = build(name)(images=images, prompts=PROMPTS)
        assert all(type(reward) is float for reward in rewards)
    assert set(modes) == {False}


@pytest.mark.parametrize("name", ["aesthetic", "clip_score"])
def test_everything_is_on_the_device(build, name):
    """A device without data: all that fails is the reading of the result. What is left on the CPU fails before."""
    with pytest.raises(
        (NotImplementedError, PluginError, RuntimeError), match="Cannot copy out of meta tensor|item.*meta"
    ):
        build(name, device="meta")(images=[noise((32, 32), 0)], prompts=["a cat"])


# The published head


def test_the_head_has_the_documented_layers(build, head):
    """As in its authors' code: Linear 768-1024-128-64-16-1, dropouts at 1, 3 and 5, no activations."""
    from reward_plugins.aesthetic import load_head

    layers = load_head(str(head[0]), "main")
    assert [(layer.in_features, layer.out_features) for layer in layers] == LAYERS
    assert all(type(layer) is torch.nn.Linear for layer in layers)
    assert set(layers.state_dict()) == {
        f"{key.removeprefix('layers.')}.{part}" for key in HEAD_KEYS for part in ("weight", "bias")
    }
    assert not any(parameter.requires_grad for parameter in layers.parameters())


@pytest.mark.parametrize(
    ("layers", "keys"),
    [
        pytest.param([(512, 1024), *LAYERS[1:]], HEAD_KEYS, id="of CLIP B/32"),
        pytest.param(LAYERS, ["layers.0", "layers.1", "layers.2", "layers.3", "layers.4"], id="without dropouts"),
    ],
)
def test_another_head_is_refused(build, tmp_path, layers, keys):
    save_head(tmp_path / "head", layers, keys)
    with pytest.raises(PluginError, match="could not build reward 'aesthetic': RuntimeError"):
        build("aesthetic", head=str(tmp_path / "head"))


def test_a_pickle_that_runs_code_is_refused(build, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "aesthetic-model.pth").write_bytes(pickle.dumps({"layers.0.weight": Hostile()}, protocol=2))
    with pytest.raises(PluginError, match="UnpicklingError"):
        build("aesthetic", head=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_clip_of_another_size_is_refused(build, tmp_path):
    save_clip(tmp_path, projection_dim=32)
    with pytest.raises(
        PluginError, match="takes CLIP embeddings of 768 numbers; those of .* have 32. Use 'openai/clip-vit"
    ):
        build("aesthetic", model=str(tmp_path))


# Where the weights come from


@pytest.mark.parametrize("name", ["aesthetic", *SIMILARITIES])
def test_a_model_that_is_not_there_is_named(build, name):
    with pytest.raises(PluginError, match=f"could not build reward '{name}': OSError.*no/such-model"):
        build(name, model="no/such-model")


def test_a_head_that_is_not_there_is_named(build):
    with pytest.raises(PluginError, match=r"OSError.*no/such-head"):
        build("aesthetic", head="no/such-head")


@pytest.mark.parametrize("name", ["aesthetic", *SIMILARITIES])
def test_the_revisions_are_in_the_signature(name):
    """From there they go into a run's record. 40 hexadecimal digits are a commit, which cannot change."""
    defaults = {
        key: value.default for key, value in inspect.signature(CATALOGUE.rewards[name].spec.factory).parameters.items()
    }
    revisions = {key: value for key, value in defaults.items() if "revision" in key}
    assert len(revisions) == 2
    unpinned = {
        key for key, value in revisions.items() if len(value) != 40 or not set(value) <= set("0123456789abcdef")
    }
    assert unpinned == ({"revision"} if name == "hps_v2" else set())


def test_the_revision_is_asked_for(build, monkeypatch, tmp_path):
    """Only what is asked of the Hub's client can be seen here: without a network, it finds nothing."""
    asked = []

    def record(path, filename, **kwargs):
        asked.append((str(path), filename, kwargs.get("revision")))
        raise OSError("offline")

    monkeypatch.setattr("transformers.utils.hub.cached_file", record)
    with pytest.raises(PluginError, match="offline"):
        build("aesthetic", head="someone/head", head_revision="abc")
    assert asked == [("someone/head", "aesthetic-model.pth", "abc")]
