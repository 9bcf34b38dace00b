"""LoRA adapters load on their base model, and what is exported says the same as they do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import adapters, cli
from anomalyr1.checkpoint import (
    NANO_FOLDER,
    SETTINGS_FILE,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.export import export_checkpoint
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.training.nano import NanoShape, build_nano
from anomalyr1.types import InputError, Record

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft", reason="adapters need the extra 'train'")

TINY = NanoShape(1024, 64, 2, 64, 2, 84 * 84)
LORA = {"peft_type": "LORA", "base_model_name_or_path": "nano"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_checkpoint(build_nano(TINY, seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """An adapter as training leaves it, beside its base."""
    folder = base.parent / "adapter"
    save_checkpoint(adapt(load_checkpoint(str(base))), folder)
    return folder


def adapt(checkpoint: Checkpoint, **settings: Any) -> Checkpoint:
    """With an adapter on q_proj and v_proj whose B is random, since LoRA starts it at zero."""
    config = peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **settings})
    torch.manual_seed(1)
    model = peft.get_peft_model(checkpoint.model, config)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return replace(checkpoint, model=model.eval())


def make_adapter(folder: Path, config: object = LORA, *names: str) -> str:
    """A folder with that adapter_config.json and empty files of those names."""
    folder.mkdir()
    (folder / adapters.CONFIG_FILE).write_text(json.dumps(config))
    for name in names or (adapters.WEIGHTS_FILE,):
        (folder / name).write_bytes(b"")
    return str(folder)


def change_config(folder: Path, **fields: object) -> None:
    path = folder / adapters.CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def copy_adapter(adapter: Path, folder: Path, **fields: object) -> str:
    folder.mkdir()
    for name in (adapters.CONFIG_FILE, adapters.WEIGHTS_FILE):
        (folder / name).write_bytes((adapter / name).read_bytes())
    change_config(folder, **fields)
    return str(folder)


@pytest.fixture
def logits() -> Callable[[Checkpoint], Any]:
    """Logits of a checkpoint for one picture, the same for every call in a test."""
    picture = Image.effect_noise((90, 70), 80).convert("RGB")
    record = Record("7", Path("7.png"), category="part")
    prompt = build_inspection_prompt(record, num_references=0, hint=None)

    def compute(checkpoint: Checkpoint) -> Any:
        inputs = TransformersEngine(checkpoint)._inputs(prompt, [picture])
        with torch.inference_mode():
            return checkpoint.model(**inputs).logits

    return compute


def test_an_exported_adapter_says_the_same_as_before_it_was_merged(
    adapter: Path, base: Path, tmp_path: Path, logits: Callable[[Checkpoint], Any]
) -> None:
    from transformers import AutoModelForImageTextToText

    out = tmp_path / "exported"
    export_checkpoint(str(adapter), out, dtype="float32")
    loaded, merged = load_checkpoint(str(adapter)), load_checkpoint(str(out))
    before = logits(loaded)
    assert not torch.allclose(before, logits(load_checkpoint(str(base))), atol=1e-2)
    assert torch.allclose(before, logits(merged), atol=1e-4)
    plain = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32).eval()
    assert torch.allclose(before, logits(replace(merged, model=plain)), atol=1e-4)
    assert (loaded.name, loaded.frame) == (str(adapter), "absolute")
    assert merged.settings == loaded.settings == build_nano(TINY, 0).settings
    ends = [one.model.generation_config.eos_token_id for one in (merged, loaded)]
    assert ends[0] == ends[1] is not None
    assert sorted(path.name for path in out.iterdir()) == [
        "anomalyr1.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_whole_checkpoint_is_exported_in_the_dtype_asked_for(
    base: Path, tmp_path: Path, dtype: str
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "new" / "folder"
    export_checkpoint(str(base), out, dtype=dtype)
    kinds = {value.dtype for value in load_file(out / "model.safetensors").values()}
    assert kinds == {getattr(torch, dtype)}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype


def test_a_processor_saved_in_training_leaves_its_own_class_out(tmp_path: Path) -> None:
    checkpoint = build_nano(TINY, seed=0)
    checkpoint.processor.save_pretrained(tmp_path / "training")
    assert "PictureText" in (tmp_path / "training" / "tokenizer_config.json").read_text()
    save_checkpoint(checkpoint, tmp_path / "model")
    shutil.copy(tmp_path / "training" / "tokenizer_config.json", tmp_path / "model")
    export_checkpoint(str(tmp_path / "model"), tmp_path / "exported")
    for path in (tmp_path / "exported").glob("*.json"):
        assert "processor_class" not in json.loads(path.read_text()), path


def test_the_command_prints_the_folder_it_wrote(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    done = CliRunner().invoke(cli.app, ["export", str(adapter), "--out", str(out)])
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_generates_as_it_is(adapter: Path) -> None:
    engine = TransformersEngine.load(str(adapter))
    prompt = build_inspection_prompt(
        Record("7", Path("7.png"), category="part"), num_references=0, hint=None
    )
    (said,) = engine.generate([prompt], [[Image.new("RGB", (90, 70))]], max_new_tokens=3)
    assert said.num_tokens >= 1
    assert engine.engine_id == str(adapter)


def test_a_saved_adapter_holds_no_model_and_no_pickle(adapter: Path, base: Path) -> None:
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "anomalyr1.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert adapters.read_base(adapter) == str(base)


def test_an_adapter_of_the_bundled_model_names_it_and_no_path(tmp_path: Path) -> None:
    save_checkpoint(adapt(load_checkpoint("nano")), tmp_path)
    assert adapters.read_base(tmp_path) == "nano"
    places = [path.name for path in tmp_path.iterdir() if bytes(NANO_FOLDER) in path.read_bytes()]
    assert places == []
    again = tmp_path / "again"
    save_checkpoint(load_checkpoint(str(tmp_path)), again)
    assert adapters.read_base(again) == "nano"
    weights = [(path / adapters.WEIGHTS_FILE).read_bytes() for path in (tmp_path, again)]
    assert weights[0] == weights[1]


def test_a_folder_that_a_trainer_wrote_loads(
    base: Path, tmp_path: Path, logits: Callable[[Checkpoint], Any]
) -> None:
    checkpoint = adapt(load_checkpoint(str(base)))
    checkpoint.model.save_pretrained(tmp_path)
    checkpoint.processor.save_pretrained(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"a pickle that is not opened")
    loaded = load_checkpoint(str(tmp_path))
    assert torch.allclose(logits(checkpoint), logits(loaded), atol=1e-5)
    # What a GRPO on top of it needs: the adapter alone can be trained again.
    loaded.model.set_requires_grad("default")
    trained = [name for name, weight in loaded.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 8
    assert all("lora_" in name for name in trained)


def test_only_the_trained_adapter_is_saved_when_there_is_a_copy_of_it(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    checkpoint = adapt(load_checkpoint(str(base)))
    checkpoint.model.add_adapter("ref", checkpoint.model.peft_config["default"])
    save_checkpoint(checkpoint, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    files = [(folder / adapters.WEIGHTS_FILE).read_bytes() for folder in (tmp_path, adapter)]
    assert files[0] == files[1]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_embeddings_comes_back(
    base: Path, tmp_path: Path, logits: Callable[[Checkpoint], Any]
) -> None:
    adapted = adapt(load_checkpoint(str(base)), target_modules=["embed_tokens", "q_proj"])
    save_checkpoint(adapted, tmp_path)
    assert torch.allclose(logits(adapted), logits(load_checkpoint(str(tmp_path))), atol=1e-5)


def test_what_the_adapter_folder_lacks_comes_from_the_base(adapter: Path, tmp_path: Path) -> None:
    bare = load_checkpoint(copy_adapter(adapter, tmp_path / "bare"))
    assert bare.settings.max_references == 1
    assert bare.processor.image_processor.size["longest_edge"] == 84 * 84
    (tmp_path / "bare" / SETTINGS_FILE).write_text('{"max_references": 3}')
    assert load_checkpoint(str(tmp_path / "bare")).settings.max_references == 3


def test_a_base_beside_the_adapter_is_found_from_elsewhere(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change_config(adapter, base_model_name_or_path="../model")
    assert load_checkpoint(str(adapter)).model.get_base_model().name_or_path
    change_config(adapter, base_model_name_or_path=str(adapter.parent / "model"))


def test_a_model_that_was_never_saved_cannot_be_named_by_its_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"never loaded from a folder.*save that model first"):
        save_checkpoint(adapt(build_nano(TINY, seed=0)), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_what_is_trained_beside_the_adapter_is_not_lost_without_a_word(
    base: Path, tmp_path: Path
) -> None:
    checkpoint = adapt(load_checkpoint(str(base)), modules_to_save=["merger"], bias="lora_only")
    save_checkpoint(checkpoint, tmp_path / "kept")
    checkpoint.model.get_base_model().model.visual.requires_grad_(True)
    with pytest.raises(InputError, match=r"visual\..* is trained too, but only the adapter"):
        save_checkpoint(checkpoint, tmp_path / "lost")


def test_the_model_inside_the_wrapper_is_not_taken_for_a_whole_one(
    base: Path, tmp_path: Path
) -> None:
    checkpoint = adapt(load_checkpoint(str(base)))
    inside = replace(checkpoint, model=checkpoint.model.get_base_model())
    with pytest.raises(TypeError, match=r"give the peft\.PeftModel around it"):
        save_checkpoint(inside, tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "names", "message"),
    [
        ({}, (), r"adapter_config\.json cannot be read: KeyError"),
        ([], (), r"adapter_config\.json cannot be read: TypeError"),
        ({**LORA, "peft_type": "IA3"}, (), r"has peft_type 'IA3'; only 'LORA' is loaded"),
        ({**LORA, "base_model_name_or_path": None}, (), "names no base model: set base_model_name"),
        (LORA, ("adapter_model.bin",), r"pickled weights \(adapter_model\.bin\).*safetensors"),
        (LORA, ("README.md",), "adapter holds no adapter weights"),
        (
            LORA,
            (adapters.WEIGHTS_FILE, "model-00001-of-00002.safetensors"),
            "an adapter and a whole model",
        ),
        (
            {**LORA, "base_model_name_or_path": "./nowhere"},
            (),
            r'\./nowhere does not exist; set base_model_name_or_path in .*config\.json to "nano"',
        ),
        (LORA, (), "the adapter .* cannot be loaded"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_named_with_its_remedy(
    tmp_path: Path, config: object, names: tuple[str, ...], message: str
) -> None:
    source = make_adapter(tmp_path / "adapter", config, *names)
    with pytest.raises(InputError, match=message):
        load_checkpoint(source)


def test_an_adapter_on_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    source = copy_adapter(adapter, tmp_path / "second", base_model_name_or_path=str(adapter))
    with pytest.raises(InputError, match="is an adapter itself: merge it with anomalyr1 export"):
        load_checkpoint(source)


def test_a_base_that_the_hub_does_not_give_is_named(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    def refuse(name: str) -> None:
        raise OSError(f"{name} is not a valid model identifier")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    source = copy_adapter(adapter, tmp_path / "it", base_model_name_or_path="some/model")
    with pytest.raises(InputError, match=r"some/model, the base model of .*; set base_model_name"):
        load_checkpoint(source)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 8}, "cannot be loaded: .*size mismatch"),
        ({"target_modules": ["q_proj"]}, "does not fit its base model: it has unknown 4 weights"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "it lacks 4 weights, such as"),
        ({"target_modules": ["no_such_layer"]}, "cannot be loaded: .*no_such_layer"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    adapter: Path, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    source = copy_adapter(adapter, tmp_path / "it", **fields)
    with pytest.raises(InputError, match=f"(?s){message}"):
        load_checkpoint(source)


def test_without_peft_the_extra_is_named(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs PEFT: pip install 'anomalyr1\[train\]'"):
        load_checkpoint(str(adapter))


def test_a_folder_that_is_not_empty_is_not_exported_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty: give another --out"):
        export_checkpoint("nano", tmp_path)
    with pytest.raises(InputError, match="is not empty: give another --out"):
        export_checkpoint("nano", tmp_path / "notes.txt")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype 'int8' is unknown; choose bfloat16, float32, floa"):
        export_checkpoint("nano", tmp_path / "out", dtype="int8")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["embed_tokens", "q_proj"]}, {"modules_to_save": ["lm_head"]}],
    ids=str,
)
def test_an_adapter_on_tied_embeddings_is_not_merged(
    base: Path, settings: dict[str, object]
) -> None:
    adapted = adapt(load_checkpoint(str(base)), **settings)
    with pytest.raises(InputError, match=r"tie_word_embeddings.*without embed_tokens and lm_head"):
        adapters.merge_adapter(adapted.model)


def test_weights_that_do_not_fit_the_dtype_are_named(base: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(str(base))
    checkpoint.model.model.language_model.norm.weight.data[0] = 1e6
    save_checkpoint(checkpoint, tmp_path / "large")
    with pytest.raises(InputError, match=r"norm\.weight of .* is not finite in float16"):
        export_checkpoint(str(tmp_path / "large"), tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_finite_is_not_merged(base: Path) -> None:
    adapted = adapt(load_checkpoint(str(base)))
    for name, weight in adapted.model.named_parameters():
        if "lora_B" in name:
            weight.data[0] = float("nan")
    with pytest.raises(InputError, match="cannot be merged"):
        adapters.merge_adapter(adapted.model)
