"""Tiny random models of the kinds that rewards load, as folders that the same code loads."""

import json

from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    CLIPVisionConfig,
    DebertaConfig,
    DebertaModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tiny_llava(folder, words="yes Yes no No"):
    """Make a LLaVA of 16 x 16 pixels. `words` are tokens of its tokenizer; all others are single bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([words] * 9, trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SIZES, num_hidden_layers=2, image_size=16, patch_size=8),
        text_config=LlamaConfig(
            **SIZES,
            num_hidden_layers=2,
            vocab_size=len(tokenizer),
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.5,  # replies then depend on the image
        ),
        image_token_index=3,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return str(folder)


TEXT = "the image contains a cat riding two bikes and some dogs playing chess by the sea turtle turtles six 6 . , ?"


def tiny_encoder(folder, kind="bert", num_hidden_layers=3, max_length=40):
    """Make an encoder of texts. `max_length` None: a tokenizer that does not know how much its model reads."""
    limit = {} if max_length is None else {"model_max_length": max_length}
    {"bert": _bert_words, "roberta": _roberta_words, "deberta": _deberta_words}[kind](folder, limit)
    sizes = {**SIZES, "num_hidden_layers": num_hidden_layers, "vocab_size": 400, "initializer_range": 0.5}
    if kind == "bert":
        model = BertModel(BertConfig(**sizes, max_position_embeddings=40))
    elif kind == "roberta":
        model = RobertaModel(RobertaConfig(**sizes, max_position_embeddings=42))
    else:
        position = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
        model = DebertaModel(DebertaConfig(**sizes, **position, max_position_embeddings=40, type_vocab_size=0))
    model.eval().save_pretrained(folder)
    return str(folder)


def _bert_words(folder, limit):
    folder.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*TEXT.split(), *letters])]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in letters)]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **limit}))


def _byte_pairs(folder, specials):
    folder.mkdir(exist_ok=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT] * 3, vocab_size=390, special_tokens=specials)
    tokenizer.save_model(str(folder))


def _roberta_words(folder, limit):
    _byte_pairs(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", **limit}))


def _deberta_words(folder, limit):
    _byte_pairs(folder, ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaTokenizer", **limit}))
