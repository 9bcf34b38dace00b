"""Recipes: every committed one parses, and a mistyped one is refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from anomalyr1.rewards import REWARDS
from anomalyr1.training.recipe import load_recipe
from anomalyr1.types import InputError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
HEAD = 'description = "d"\nneeds = "n"\n'


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    return path


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_trains_something(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description and recipe.needs and recipe.data.records
    assert recipe.hint or recipe.regions or recipe.see or recipe.sft or recipe.grpo


def test_tables_become_settings(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_recipe(tmp_path, '[data]\nrecords = ["a.jsonl"]\n[see]\nlearning_rate = 1\n')
    )
    assert recipe.data.records == ("a.jsonl",) and recipe.data.limit is None
    assert recipe.see is not None and isinstance(recipe.see.learning_rate, float)
    assert recipe.hint is None and recipe.sft is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", r"recipe\.toml has an unknown key 'sed', did you mean 'seed'"),
        ("[see]\nnum_stepz = 3", r"\[see\] has an unknown key 'num_stepz', did you mean 'num_st"),
        ("[see]\nqqq = 3", "known: num_steps, batch_size, learning_rate"),
        ("[see]\nnum_steps = 2.5", r"\[see\] num_steps is 2\.5; expected int"),
        ("[see]\nnum_steps = true", "is True; expected int"),
        ("[rows]\nmax_boxes = '4'", "is '4'; expected int"),
        ("[data]\nrecords = 'a.jsonl'", "expected a list of texts"),
        ("[data]\nrecords = [1]", "expected a list of texts"),
        ("see = 3", r"\[see\] must be a table"),
        ("sft = 3", "sft is 3; expected a table"),
        ("seed = ", "cannot be read"),
    ],
)
def test_a_mistake_is_refused_with_what_was_meant(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write_recipe(tmp_path, text))


def test_a_recipe_without_a_description_is_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text("seed = 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bare\.toml is incomplete.*description"):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_overrides_change_keys_and_make_tables(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "[see]\nnum_steps = 5\n")
    overrides = ["see.num_steps=2", "seed=7", "model=some/model", "sft.learning_rate=1e-4"]
    recipe = load_recipe(path, overrides)
    assert recipe.see is not None and recipe.see.num_steps == 2
    assert (recipe.seed, recipe.model) == (7, "some/model")
    assert recipe.sft == {"learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("see.num_steps", "not of the form"),
        ("a.b.c=1", "not of the form"),
        ("=1", "not of the form"),
        ("seed.x=1", "seed is not a table"),
        ("see.num_stepz=1", "did you mean 'num_steps'"),
        ("seed=x", "is 'x'; expected int"),
    ],
)
def test_a_mistyped_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write_recipe(tmp_path, "seed = 0\n"), [override])


def test_recipes_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    from anomalyr1.cli.train import train

    train(RECIPES[0].parent, list_recipes=True)
    shown = capsys.readouterr().out
    assert "needs" in shown
    for path in RECIPES:
        assert path.stem[:9] in shown


def test_a_folder_without_recipes_cannot_be_listed(tmp_path: Path) -> None:
    from anomalyr1.cli.train import train

    with pytest.raises(InputError, match="holds no recipe"):
        train(tmp_path, list_recipes=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_tables_of_a_recipe_have_the_trainers_own_names(path: Path) -> None:
    trl = pytest.importorskip("trl", reason="training needs the extra 'train'")
    peft = pytest.importorskip("peft", reason="training needs the extra 'train'")
    recipe = load_recipe(path)
    for table, config in (
        (recipe.sft, trl.SFTConfig),
        (recipe.grpo, trl.GRPOConfig),
        (recipe.lora, peft.LoraConfig),
    ):
        known = {entry.name for entry in fields(config)}
        assert set(table or {}) <= known, set(table or {}) - known
    if recipe.grpo is not None:
        assert set(recipe.reward_funcs) <= set(REWARDS)
        weights = recipe.grpo.get("reward_weights", recipe.reward_funcs)
        assert len(weights) == len(recipe.reward_funcs) > 0


def test_rollouts_of_a_vllm_that_is_not_installed_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalyr1.cli.train import train

    pytest.importorskip("torch", reason="training needs the extra 'train'")
    monkeypatch.setattr("anomalyr1.training.recipe.find_spec", lambda name: None)
    recipe, out = RECIPES[0].parent / "nano-grpo.toml", tmp_path / "run"
    with pytest.raises(InputError, match="use_vllm needs vLLM in the trainer's environment"):
        train(recipe, ["grpo.use_vllm=true"], out_dir=out, num_workers=1)
    assert not out.exists()
