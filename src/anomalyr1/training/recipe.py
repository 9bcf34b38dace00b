"""Recipes: TOML tables to frozen settings, strict about every key, and the stages they run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from anomalyr1.training.dataset import RowSettings
from anomalyr1.types import InputError

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Records files to train on, and how many records of each at most (None: all); records files
    to measure on before and after, and how many of each."""

    records: tuple[str, ...] = ()
    limit: int | None = None
    validation: tuple[str, ...] = ()
    validation_limit: int | None = None


@dataclass(frozen=True, slots=True)
class HintSettings:
    """The detector's head: see `training.hint`. `further`: from the model's own head and features
    instead of from scratch."""

    further: bool = False
    num_steps: int = 4000
    batch_size: int = 8
    learning_rate: float = 2e-3
    num_pictures_to_standardise: int = 100


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """What moves and names the regions of the detector's map: see `training.regions`. It wants
    other pictures than those that the detector's head was trained on."""

    num_steps: int = 4000
    batch_size: int = 128
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class SeeSettings:
    """The dense stage of the vision tower: see `training.see`."""

    num_steps: int = 1500
    batch_size: int = 16
    learning_rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `anomalyr1 train` runs. Tables that are absent are stages that are left out.

    A `hint` beside a language stage is trained first, then its `regions`; both are looked through,
    and kept with the checkpoint.
    `model` is what training starts from: "new" for an untrained nano, or a checkpoint, held in
    `dtype`. Its pictures are resized to at most `max_picture_pixels`; a record whose prompt has
    more than `max_prompt_tokens` is refused before the first step. `lora` goes unchanged to PEFT's
    LoraConfig.
    `freeze_vision` keeps the vision tower as it is in the language stages. `sft` goes unchanged to
    TRL's SFTConfig, `grpo` to its GRPOConfig; `reward_funcs` are names from `rewards.REWARDS`. A
    group of completions whose rewards are all equal is sampled up to `resample_equal_groups` times
    more.
    """

    description: str
    needs: str
    model: str = "new"
    dtype: str = "float32"
    max_picture_pixels: int | None = None
    max_prompt_tokens: int | None = None
    seed: int = 0
    freeze_vision: bool = False
    data: DataSettings = field(default_factory=DataSettings)
    rows: RowSettings = field(default_factory=RowSettings)
    hint: HintSettings | None = None
    regions: RegionSettings | None = None
    see: SeeSettings | None = None
    lora: Mapping[str, Any] | None = None
    sft: Mapping[str, Any] | None = None
    reward_funcs: tuple[str, ...] = ()
    resample_equal_groups: int = 0
    grpo: Mapping[str, Any] | None = None


def check_rewards(recipe: Recipe) -> None:
    """Raise InputError for an unknown reward (the nearest is named) and weights that do not fit."""
    from anomalyr1.rewards import load_rewards

    if recipe.grpo is None:
        return
    load_rewards(recipe.reward_funcs)
    weights = recipe.grpo.get("reward_weights")
    if weights is not None and len(weights) != len(recipe.reward_funcs):
        raise InputError(
            f"grpo.reward_weights has {len(weights)} values for {len(recipe.reward_funcs)} "
            "reward_funcs: give one a reward"
        )


def check_vllm(recipe: Recipe) -> None:
    """Raise InputError where vLLM is to do rollouts and is not installed beside the trainer."""
    if recipe.grpo is not None and recipe.grpo.get("use_vllm") and find_spec("vllm") is None:
        raise InputError(
            "grpo.use_vllm needs vLLM in the trainer's environment, for rollouts of a server too: "
            "see docs/training.md on which, or leave use_vllm out"
        )


_TABLES: dict[str, type] = {
    "data": DataSettings,
    "rows": RowSettings,
    "hint": HintSettings,
    "regions": RegionSettings,
    "see": SeeSettings,
}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `overrides` are "section.key=value" with TOML values.

    Raises InputError for unknown keys (the nearest is named), wrong types and unreadable files.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error
    for override in overrides:
        _override(tables, override)
    for name, kind in _TABLES.items():
        if name in tables:
            tables[name] = _build(kind, tables[name], f"{path.name} [{name}]")
    return _build(Recipe, tables, path.name)


def _override(tables: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) > 2 or not all(keys):
        raise InputError(f"{override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = tables
    if len(keys) == 2:
        table = tables.setdefault(keys[0], {})
        if not isinstance(table, dict):
            raise InputError(f"{keys[0]} is not a table, so {override!r} cannot be set")
    table[keys[-1]] = value


def _build(kind: type[Settings], table: object, where: str) -> Settings:
    if not isinstance(table, dict):
        raise InputError(f"{where} must be a table")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise InputError(f"{where} has an unknown key {key!r}{hint}")
        table[key] = _typed(value, str(known[key].type), f"{where} {key}")
    try:
        return kind(**table)
    except TypeError as error:
        raise InputError(f"{where} is incomplete: {error}") from error


def _typed(value: Any, wanted: str, where: str) -> Any:
    """Check against the field's annotation; integers are good floats, lists become tuples."""
    simple: dict[str, type | tuple[type, ...]] = {
        "int": int,
        "float": (int, float),
        "str": str,
        "bool": bool,
    }
    base = wanted.removesuffix(" | None")
    if base in simple:
        if not isinstance(value, simple[base]) or (isinstance(value, bool) and base != "bool"):
            raise InputError(f"{where} is {value!r}; expected {base}")
        number: Any = value
        return float(number) if base == "float" else number
    if base == "tuple[str, ...]":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{where} is {value!r}; expected a list of texts")
        return tuple(value)
    if base.startswith("Mapping") and not isinstance(value, dict):
        raise InputError(f"{where} is {value!r}; expected a table")
    return value
