"""A GRPO update of Qwen2.5-VL-3B with random weights on one GPU: shared prompts beside stock TRL.

Full training and LoRA, bfloat16, eight completions of a prompt with two 1000x800 pictures. Also
tells the share of the card's measured matrix rate, and peak memory. Needs one GPU of 80 GB and no
download. Usage: python benchmarks/gpu_grpo.py [gpu_grpo.json] [repeats]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from comparing import Comparison, compare, report
from grpo_update import build_rows, build_trainer, build_update, differ_by, update
from trl import GRPOTrainer

from anomalyr1.checkpoint import load_checkpoint
from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer

NUM_GENERATIONS = 8
COMPLETION_TOKENS = 200
SIZE_WH = (1000, 800)
MOST_DIFFERENCE = 0.1
"""Gradients are sums of many bfloat16 products in another order."""


def build_model(processor: Any) -> Any:
    """Qwen2.5-VL-3B's shape (its published config) with random weights, in bfloat16."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = processor.tokenizer
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128000,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
        },
        tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        return Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)


def measure_matrix_rate() -> float:
    """FLOPs a second of a large bfloat16 product on this card."""
    side = 8192
    first, second = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _warming in range(5):
        first @ second
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _turn in range(20):
        first @ second
    torch.cuda.synchronize()
    return 20 * 2 * side**3 / (time.perf_counter() - started)


def measure_peak(run: Any) -> float:
    """GiB of GPU memory at the highest point of a run."""
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**30


def compare_updates(lora: bool, repeats: int) -> tuple[Comparison, dict[str, Any]]:
    """An update both ways on one set of weights, with peak memory and the count of operations."""
    from peft import LoraConfig, get_peft_model

    processor = load_checkpoint("nano", device="cpu").processor
    processor.image_processor.size["longest_edge"] = SIZE_WH[0] * SIZE_WH[1]
    model = build_model(processor)
    if lora:
        model.model.visual.requires_grad_(False)
        names = ["q_proj", "k_proj", "v_proj", "o_proj"]
        model = get_peft_model(model, LoraConfig(r=16, target_modules=names))
    settings: dict[str, Any] = {
        "bf16": True,
        "beta": 0.0,
        "max_completion_length": COMPLETION_TOKENS,
    }
    trainers = [
        build_trainer(kind, model, processor, NUM_GENERATIONS, **settings)
        for kind in (SharedPrefixGRPOTrainer, GRPOTrainer)
    ]
    rows = build_rows(1, NUM_GENERATIONS, SIZE_WH)
    inputs = build_update(processor, rows, COMPLETION_TOKENS, "cuda")
    ours, stock = (update(trainer, inputs) for trainer in trainers)
    comparison = compare(
        f"update, {'LoRA' if lora else 'full'}",
        lambda: {name: gradient.clone() for name, gradient in ours().items()},
        stock,
        differ_by,
        most=MOST_DIFFERENCE,
        repeats=repeats,
    )
    prompt = inputs["prompt_ids"].shape[1]
    base = model.get_base_model() if lora else model
    weights = sum(parameter.numel() for parameter in base.model.language_model.parameters())
    tokens = prompt + NUM_GENERATIONS * COMPLETION_TOKENS
    more = {
        "prompt_tokens": prompt,
        "language_flops": (4 if lora else 6) * weights * tokens,
        "peak_gib_ours": measure_peak(ours),
        "peak_gib_stock": measure_peak(stock),
    }
    return comparison, more


def main() -> None:
    """Print the table and write the JSON file."""
    if not torch.cuda.is_available():
        raise SystemExit(
            "this benchmark needs a CUDA device; benchmarks/shared_prompts.py does not"
        )
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu_grpo.json")
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    rate = measure_matrix_rate()
    comparisons, details = [], []
    for lora in (False, True):
        comparison, more = compare_updates(lora, repeats)
        reached = more["language_flops"] / min(comparison.ours) / rate
        details.append({**more, "share_of_matrix_rate": reached})
        comparisons.append(comparison)
        torch.cuda.empty_cache()
    report(comparisons, out, card=torch.cuda.get_device_name(), matrix_flops=rate, details=details)


if __name__ == "__main__":
    main()
