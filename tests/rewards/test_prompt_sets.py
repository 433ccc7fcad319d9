import ast
import hashlib
import json

import pytest
from support.pages import ROOT

from ddpo_plugins import load_catalogue
from reward_plugins.classifier import class_names, classes_of

# By hand, from facts about English: the oracle for what `inflect` makes of the animals.
PLURALS = {
    "ant": "ants", "bat": "bats", "bear": "bears", "bee": "bees", "beetle": "beetles", "bird": "birds",
    "butterfly": "butterflies", "camel": "camels", "cat": "cats", "chicken": "chickens", "cow": "cows", "deer": "deer",
    "dog": "dogs", "dolphin": "dolphins", "duck": "ducks", "fish": "fish", "fly": "flies", "fox": "foxes",
    "frog": "frogs", "goat": "goats", "goose": "geese", "gorilla": "gorillas", "hedgehog": "hedgehogs",
    "horse": "horses", "kangaroo": "kangaroos", "lion": "lions", "lizard": "lizards", "llama": "llamas",
    "monkey": "monkeys", "mouse": "mice", "pig": "pigs", "rabbit": "rabbits", "raccoon": "raccoons", "rat": "rats",
    "shark": "sharks", "sheep": "sheep", "snake": "snakes", "spider": "spiders", "squirrel": "squirrels",
    "tiger": "tigers", "turkey": "turkeys", "turtle": "turtles", "whale": "whales", "wolf": "wolves", "zebra": "zebras",
}  # fmt: skip
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


#: Sets to evaluate on, with the number of their rows.
UNSEEN = {"unseen_animals": 38, "everyday_objects": 50, "unseen_activities": 90, "unseen_counting": 70}
OF_THE_EMBEDDED_MODEL = {"other_animals": 19, "unpictured_animals": 10, "unseen_combinations": 42}


@pytest.fixture(scope="module")
def rows():
    prompt_sets = load_catalogue().prompt_sets
    return lambda name: list(prompt_sets[name].spec.rows())


def test_animals(rows):
    assert rows("animals") == [
        {"prompt": "an ant" if animal == "ant" else f"a {animal}", "animal": animal} for animal in PLURALS
    ]
    assert len(PLURALS) == 45


def test_animal_activities(rows):
    table = rows("animal_activities")
    assert len(table) == 45 * 3
    assert table[0] == {"prompt": "an ant riding a bike", "animal": "ant", "activity": "riding a bike"}
    assert {row["activity"] for row in table} == {"riding a bike", "playing chess", "washing the dishes"}
    for row in table:
        article = "an" if row["animal"] == "ant" else "a"
        assert row["prompt"] == f"{article} {row['animal']} {row['activity']}"
    assert {row["animal"] for row in table} == set(PLURALS)


def test_counting(rows):
    table = rows("counting")
    assert {(row["animal"], row["count"]) for row in table} == {(animal, n) for animal in PLURALS for n in NUMBERS}
    for row in table:
        assert type(row["count"]) is int
        assert row["prompt"] == f"{NUMBERS[row['count']]} {PLURALS[row['animal']]}"


@pytest.mark.parametrize("name", [*UNSEEN, "other_animals", "unpictured_animals"])
def test_unseen_prompts_are_none_of_those_that_are_trained_on(rows, name):
    trained = {row["prompt"] for other in ("animals", "animal_activities", "counting") for row in rows(other)}
    table = rows(name)
    assert len(table) == {**UNSEEN, **OF_THE_EMBEDDED_MODEL}[name]
    assert not trained & {row["prompt"] for row in table}


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("unseen_animals", {"an elephant", "a komodo dragon", "an ostrich"}),
        ("everyday_objects", {"a toaster", "an iron", "scissors", "an umbrella", "post-it notes"}),
        ("unseen_activities", {"an ant taking an exam", "a wolf driving a car"}),
        ("unseen_counting", {"two elephants", "eight walruses"}),
        ("other_animals", {"an owl", "a giraffe"}),
        ("unpictured_animals", {"an elephant", "a parrot"}),
        ("unseen_combinations", {"an ant riding a bike", "a fox playing chess"}),
    ],
)
def test_what_they_say(rows, name, prompts):
    assert prompts <= {row["prompt"] for row in rows(name)}


def test_a_reward_on_counting_prompts_can_judge_unseen_ones(rows):
    assert rows("unseen_counting")[0].keys() == rows("counting")[0].keys()


def test_prompts_of_the_embedded_model_are_those_of_its_recipe(rows):
    """Other animals that it was trained to draw, and pairs of the article's animals and activities that were held out."""
    recipe = ROOT / "examples" / "embedded_model"
    held_out = json.loads((recipe / "held_out.json").read_text())
    words = ast.parse((recipe / "words.py").read_text())
    (others,) = [
        node.value.args[0].value.split()
        for node in words.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "OTHER_ANIMALS"
    ]
    assert [row["animal"] for row in rows("other_animals")] == [
        name for name in others if name not in held_out["animals"]
    ]
    assert [row["animal"] for row in rows("unpictured_animals")] == sorted(held_out["animals"])
    trained = {(row["animal"], row["activity"]) for row in rows("animal_activities")}
    found = [(row["animal"], row["activity"]) for row in rows("unseen_combinations")]
    assert found == [tuple(pair) for pair in held_out["pairs"] if tuple(pair) in trained]


AUTHORS_PROMPTS = "8d356a5fcbea73e8a0cd6854ac02ada9c286c048a34cdcfadd6a1cbcad06224d"


def test_imagenet_animals(rows):
    """The prompts are the authors', byte for byte: the hash is that of their file."""
    table = rows("imagenet_animals")
    text = "".join(row["prompt"] + "\n" for row in table)
    assert hashlib.sha256(text.encode()).hexdigest() == AUTHORS_PROMPTS
    for row in table:
        assert row == {"prompt": row["prompt"], "animal": row["prompt"].split(",")[0]}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (0, "tench"), (1, "goldfish"), (7, "cock"), (22, "bald eagle"), (100, "black swan"), (134, "crane"),
        (151, "Chihuahua"), (207, "golden retriever"), (268, "Mexican hairless"), (281, "tabby"), (291, "lion"),
        (340, "zebra"), (385, "Indian elephant"), (388, "giant panda"), (397, "puffer"),
    ],
)  # fmt: skip
def test_row_i_is_the_class_of_label_i(rows, label, name):
    """Well-known labels of ImageNet-1k; 151 to 268 are the dogs, 398 is the abacus."""
    assert rows("imagenet_animals")[label]["animal"] == name


@pytest.mark.parametrize(
    "shorten", [lambda label: label, lambda label: label.split(",")[0]], ids=["labels", "first names"]
)
def test_the_classifier_finds_the_class_of_each(rows, shorten):
    """Also one whose labels are first names alone."""
    prompts = [row["prompt"] for row in rows("imagenet_animals")]
    names = class_names({index: shorten(prompt) for index, prompt in enumerate(prompts)})
    for index, prompt in enumerate(prompts):
        assert index in classes_of(names, prompt)


NAMES = ["animals", "animal_activities", "imagenet_animals", "counting", *UNSEEN, *OF_THE_EMBEDDED_MODEL]


@pytest.mark.parametrize("name", NAMES)
def test_prompt_sets_are_tables(rows, name):
    """A dataset can be made of them: the same columns in each row, no prompt twice, no blank."""
    table = rows(name)
    assert len({tuple(row) for row in table}) == 1
    assert len({row["prompt"] for row in table}) == len(table)
    assert all(row["prompt"] and row["prompt"] == row["prompt"].strip() for row in table)
    assert rows(name) == table


@pytest.mark.parametrize("name", NAMES)
def test_a_user_cannot_spoil_a_prompt_set(rows, name):
    rows(name)[0]["prompt"] = "spoilt"
    assert rows(name)[0]["prompt"] != "spoilt"
