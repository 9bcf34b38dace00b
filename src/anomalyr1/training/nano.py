"""Makes the untrained `nano` from a seed: a small Qwen2.5-VL, its tokenizer, its processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.checkpoint import Checkpoint, CheckpointSettings, build_processor
from anomalyr1.data.question_facts import CATEGORY_FACTS
from anomalyr1.data.question_reasoning import write_choice_reasoning
from anomalyr1.data.questions import write_questions
from anomalyr1.data.wording import KIND_WORDS, describe_defect, write_reasoning
from anomalyr1.engines.answer_tokens import read_number_tokens
from anomalyr1.geometry import grid_words
from anomalyr1.prompts import (
    build_choice_prompt,
    build_inspection_prompt,
    render_choice_answer,
    render_inspection_answer,
    to_chat,
)
from anomalyr1.training.priming import NumberTokens, prime_numbers
from anomalyr1.types import Hint, HintRegion, Question, Record, Region

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's, in an order of our own."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's layout, without video and without a default system message."""

# Qwen2's pre-tokenizer, but numbers of up to three digits stay whole: one coordinate, one token;
# and the name of a box holds no number.
_SPLIT = (
    r"bbox_2d|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class NanoShape:
    """Sizes of the small model; `picture_pixels` is the area that it sees of a picture."""

    vocab_size: int = 2560
    hidden_size: int = 256
    num_layers: int = 4
    vision_hidden_size: int = 192
    vision_depth: int = 4
    picture_pixels: int = 196 * 196


def build_nano(shape: NanoShape, seed: int) -> Checkpoint:
    """An untrained checkpoint with random weights from the seed."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = build_tokenizer(shape.vocab_size, seed)
    tokens = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": 3 * shape.hidden_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.hidden_size // 32,
            "num_key_value_heads": shape.hidden_size // 64,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": tokens["<|im_end|>"],
            "pad_token_id": tokens["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden_size,
            "intermediate_size": 512,
            "num_heads": shape.vision_hidden_size // 32,
            "out_hidden_size": shape.hidden_size,
            "fullatt_block_indexes": list(range(1, shape.vision_depth, 2)),
            "window_size": 112,
        },
        tie_word_embeddings=True,
        image_token_id=tokens["<|image_pad|>"],
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    prime_numbers(model, find_numbers(tokenizer), seed)
    model.generation_config.eos_token_id = tokens["<|im_end|>"]
    model.generation_config.pad_token_id = tokens["<|endoftext|>"]
    processor = build_processor(build_image_processor(shape.picture_pixels), tokenizer)
    settings = CheckpointSettings(1, 768)
    return Checkpoint(model, processor, "absolute", "nano", settings)


def build_image_processor(picture_pixels: int) -> Any:
    """Qwen2-VL's image processor, pictures resized to at most `picture_pixels`."""
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": 112 * 112, "longest_edge": picture_pixels}
    )


def find_numbers(tokenizer: Any) -> NumberTokens:
    """The tokens that are a whole number and nothing else, those before them, and the first."""
    vocabulary = tokenizer.get_vocab()
    values = read_number_tokens(tokenizer)
    heralds = [tokenizer(text)["input_ids"][0] for text in (" 1", " [1")]
    return NumberTokens(values, heralds, vocabulary["<|im_start|>"])


def build_tokenizer(vocab_size: int, seed: int) -> Any:
    """A byte-level BPE tokenizer trained on this package's own prompts and answers."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    missing = vocab_size - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|reserved_{number}|>" for number in range(missing)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _corpus(seed: int) -> Iterator[str]:
    """Answers with varied wording, every coordinate, prompts, and plain English words."""
    rng = np.random.default_rng(seed)
    for number in range(672):
        for _repeat in range(20):
            yield f" {number},"
            yield f"{number}"
    for kind, words in KIND_WORDS.items():
        for _repeat in range(30):
            corner = rng.integers(0, 150, 2)
            box = (*corner.tolist(), *(corner + rng.integers(8, 70, 2)).tolist())
            text = describe_defect(kind, float(rng.random()), box, (224, 224), rng)
            region = Region(box, kind, text)
            shown = HintRegion(box, 65, grid_words(box, (224, 224)), kind)
            for hint in (None, Hint(int(rng.integers(101)), (shown,))):
                reasoning = write_reasoning("anomalous", [region], (224, 224), rng, hint=hint)
                yield render_inspection_answer("anomalous", [(box, kind, text)], reasoning)
                normal = write_reasoning("normal", [], (224, 224), rng, hint=hint)
                yield render_inspection_answer("normal", [], normal)
        yield " ".join(words.looks + words.causes + words.effects)
    record = Record("0", Path("0.png"), category="part", knowledge="A normal part is even.")
    question = Question("Is there any defect in the part?", {"A": "Yes.", "B": "No."}, "A")
    regions = (
        HintRegion((3, 14, 15, 92), 65, "top left", "stain"),
        HintRegion((35, 89, 79, 93), 84, "centre", "hole"),
    )
    hint = Hint(97, regions)
    prompts = [
        build_inspection_prompt(record, num_references=1, hint=hint),
        build_choice_prompt(
            Record("0", Path("0.png"), question=question), num_references=1, hint=Hint(3)
        ),
    ]
    for prompt in prompts:
        for _repeat in range(200):
            for message in to_chat(prompt):
                for part in message["content"]:
                    if part["type"] == "text":
                        yield part["text"]
    for category in CATEGORY_FACTS:
        for kind in KIND_WORDS:
            yield from _asked(category, kind, rng)


def _asked(category: str, kind: str, rng: np.random.Generator) -> Iterator[str]:
    """All questions of a drawn defect, with their answers."""
    corner = rng.integers(0, 150, 2)
    box = (*corner.tolist(), *(corner + rng.integers(8, 70, 2)).tolist())
    text = describe_defect(kind, float(rng.random()), box, (224, 224), rng)
    record = Record(
        "0", Path("0.png"), category=category, label="anomalous", regions=(Region(box, kind, text),)
    )
    for question in write_questions(record, rng, size_wh=(224, 224)):
        yield "\n".join([question.text, *question.options.values()])
        hint = Hint(int(rng.integers(101))) if rng.integers(2) else None
        reasoning = write_choice_reasoning(record, question, rng, hint=hint, size_wh=(224, 224))
        yield render_choice_answer(question.answer or "", reasoning)
