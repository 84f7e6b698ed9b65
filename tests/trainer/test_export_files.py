"""What the files of an exported folder say, and which programs can read them."""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import real_folders as real
import tiny_batches as tb
import torch
from click.testing import CliRunner, Result
from loaders import row, write_shards
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from trainer import config as configs
from trainer import export
from trainer import run as train
from trainer.generation import opening
from trainer.model.weights import read_weights
from trainer.training import run_folder, setup
from vpt_data.dialogue.tokens.reencode import action_turn

torch.set_num_threads(1)
DINO = "vpt_2b_dino"
SEEN = [{"turn": 0}, {"turn": 2, "encoder": "sam"}]


def exported(run: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(export.main, ["--checkpoint", str(run), "--out", str(out), *options])


def table(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(read_weights(folder))


@pytest.fixture(scope="module", params=real.PROCESSORS)
def run(request: pytest.FixtureRequest, bases: Path, embedded_corpus: Path, tmp_path_factory: Any) -> Path:
    """One step of each family, with DINOv2."""
    out: Path = tmp_path_factory.mktemp("exported") / "run"
    real.started(bases, embedded_corpus, out, f"model.base={bases / request.param}", "optim.steps=1", "data.rows=2")
    return out


@pytest.fixture(scope="module")
def stock(run: Path) -> Path:
    assert exported(run, run.with_name("stock")).exit_code == 0
    return run.with_name("stock")


def test_the_configuration_is_that_of_every_release(run: Path, stock: Path) -> None:
    """Of transformers 4.45 (its keys), of 5 (what it makes of them is what it was), and of vLLM (as transformers 4)."""
    model, _ = opening.loaded(run)
    found = table(stock / "config.json")
    read = AutoConfig.from_pretrained(stock).to_dict()
    was = {**model.vlm.config.to_dict(), "architectures": [type(model.vlm).__name__]}
    for part in (read, was):
        for key in ("dtype", "_name_or_path"):
            for inner in (part, part["text_config"], part["vision_config"]):
                inner.pop(key, None)
        part["text_config"].pop("tie_word_embeddings", None)  # of Qwen3-VL, for transformers 4
    assert read == was, "nothing is lost"
    assert (found["torch_dtype"], found["model_type"]) == ("bfloat16", model.vlm.config.model_type)
    text = found.get("text_config", found)
    rows = next(weight for name, weight in weights(stock).items() if name.endswith("embed_tokens.weight"))
    assert text["vocab_size"] == len(rows) == model.vlm.get_input_embeddings().num_embeddings
    assert rows.dtype == torch.bfloat16
    assert len({path.stat().st_mode for path in stock.iterdir()}) == 1, "whoever may read one may read all"
    assert text["tie_word_embeddings"] is found["tie_word_embeddings"] is ("lm_head.weight" not in weights(stock))
    assert not {"rope_parameters", "dtype", "layer_types"} & (
        found.keys() | text.keys() | found["vision_config"].keys()
    )


#: How vLLM (commits 002d181a and 002d7b93 of its repository, of about release 0.11: qwen2_vl.py, qwen2_5_vl.py,
#: qwen3_vl.py) turns the beginning of a name into one of its own modules.
VLLM = {
    "qwen2_vl": {"lm_head.": "language_model.lm_head.", "model.": "language_model.model."},
    "qwen2_5_vl": {"lm_head.": "language_model.lm_head.", "model.": "language_model.model."},
    "qwen3_vl": {
        "model.visual.": "visual.",
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
    },
}
#: What these modules have; a block of the vision tower has norms, attention (qkv, proj) and an mlp.
MODULES = (
    r"language_model\.lm_head\.weight|language_model\.model\.(embed_tokens|norm)\.weight|"
    r"language_model\.model\.layers\.\d+\.(input_layernorm|post_attention_layernorm)\.weight|"
    r"language_model\.model\.layers\.\d+\.self_attn\.([qkvo]_proj\.(weight|bias)|[qk]_norm\.weight)|"
    r"language_model\.model\.layers\.\d+\.mlp\.(gate|up|down)_proj\.weight|"
    r"visual\.(patch_embed\.proj|pos_embed)\.(weight|bias)|"
    r"visual\.blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.(fc[12]|gate_proj|up_proj|down_proj|linear_fc[12]))"
    r"\.(weight|bias)|"
    r"visual\.(merger|deepstack_merger_list\.\d+)\.(ln_q|norm|mlp\.[02]|linear_fc[12])\.(weight|bias)"
)
#: Keys of the text model that vLLM reads without a default of its own.
KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act "
    "rms_norm_eps max_position_embeddings rope_theta rope_scaling tie_word_embeddings"
)


def test_vllm_finds_its_keys_and_names(stock: Path) -> None:
    """Its loader is not run here: these are the rules by which it reads, written down."""
    found = table(stock / "config.json")
    text = found.get("text_config", found)
    assert not set(KEYS.split()) - text.keys() and "mrope_section" in text["rope_scaling"]
    assert {"image_token_id", "video_token_id", "vision_start_token_id", "vision_config"} <= found.keys()
    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
    assert found["architectures"] == [f"{names[found['model_type']]}ForConditionalGeneration"]
    rules = VLLM[found["model_type"]]
    for name in weights(stock):
        begun = next((old for old in rules if name.startswith(old)), "")
        assert re.fullmatch(MODULES, rules.get(begun, "") + name.removeprefix(begun)), name
    vocabulary = table(stock / "tokenizer.json")
    ids = [token["id"] for token in vocabulary["added_tokens"]]
    assert max(ids) < text["vocab_size"], "every token has a row"


def test_names_are_those_that_transformers_writes(run: Path, stock: Path, tmp_path: Path) -> None:
    model, _ = opening.loaded(run)
    model.vlm.save_pretrained(tmp_path)
    assert weights(stock).keys() == load_file(tmp_path / "model.safetensors").keys()


def test_what_goes_with_the_weights(run: Path, stock: Path) -> None:
    model, encoder = opening.loaded(run)
    generation, processor = (table(stock / f"{name}_config.json") for name in ("generation", "preprocessor"))
    ids = [encoder.token_id(token) for token in ("<|im_end|>", "<|endoftext|>", "<|detection_action_start|>")]
    assert generation == {
        "do_sample": True, "top_k": 1, "eos_token_id": ids[:2], "pad_token_id": ids[1], "suppress_tokens": ids[2:],
    }  # fmt: skip
    vision, unit = encoder.vision, encoder.vision.patch * 2
    assert processor["image_mean"] == list(vision.mean) and processor["patch_size"] == vision.patch
    assert (
        processor["min_pixels"] == vision.least and processor["max_pixels"] == max(128, round(128 / unit) * unit) ** 2
    )
    words = table(stock / "tokenizer_config.json")
    assert not {"local_files_only", "extra_special_tokens"} & words.keys()
    assert {"<|im_start|>", "<|im_end|>"} <= set(words["additional_special_tokens"]), "transformers 4 knows this name"
    assert (stock / "video_preprocessor_config.json").exists() is (model.vlm.config.model_type == "qwen3_vl")
    about = (stock / "README.md").read_text()
    assert f"as the class `{type(model.vlm).__name__}` of transformers" in about
    assert "It cannot look through another encoder (dino) here" in about and "over 128 pixels to 128 first" in about


def test_the_whole_model_comes_back_bit_for_bit(run: Path, bases: Path, tmp_path: Path) -> None:
    """From its published form: as weights that are asked, and as what the next run begins with."""
    done = exported(run, tmp_path / "whole", "--form", "published", "--dtype", "float32")
    assert done.exit_code == 0, done.output
    names = weights(tmp_path / "whole")
    beginnings = {"model", "visual", "lm_head", "detection_model", "detection_projector"}
    assert {name.partition(".")[0] for name in names} - {"lm_head"} == beginnings - {"lm_head"}
    assert "detection_model.encoder.layer.0.attention.attention.query.weight" in names
    mine, encoder = opening.loaded(run)
    config = run_folder.configuration(run)
    assert config is not None
    found = table(tmp_path / "whole" / "config.json")
    assert found["model_type"] == f"{mine.vlm.config.model_type}_vpt" and found["vision_encoder_ls"] == ["dino"]
    assert found["detection_action_id"] == encoder.token_id("<|detection_action|>")
    assert found["para_mask_ratio"] == 0, "the question is not masked in evaluation"
    places = [f"model.base={config.model.base}", f"model.dino={bases / 'dino'}"]
    asked, _ = opening.published(tmp_path / "whole", DINO, tuple(places))
    started = configs.load(DINO, [*places, f"model.start={tmp_path / 'whole'}"])
    begun = setup.make_model(started, setup.open_run(run).tokenizer)
    for other in (asked, begun):
        theirs = other.state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())


def test_a_model_that_was_made_here_comes_back_with_the_tokenizer_of_its_export(finished: Path, tmp_path: Path) -> None:
    """Its base has no files: what is not in the configuration is beside the weights."""
    done = exported(finished, tmp_path / "whole", "--form", "published", "--dtype", "float32")
    assert done.exit_code == 0, done.output
    (mine, encoder), (theirs, other) = opening.loaded(finished), opening.published(tmp_path / "whole", "tiny")
    found = theirs.state_dict()
    assert all(torch.equal(weight, found[name]) for name, weight in mine.state_dict().items())
    assert other.tokenizer.get_vocab() == encoder.tokenizer.get_vocab()
    assert (other.vision, other.k) == (encoder.vision, encoder.k)


def test_lora_is_merged_and_the_folder_is_a_base_again(
    bases: Path, embedded_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in several files; a run that begins with the folder as its base changes nothing of the vocabulary."""
    lora = ("lora.rank=4", "lora.alpha=12", "optim.lr=0.03", 'train=["*.lora_*"]')
    real.started(bases, embedded_corpus, tmp_path / "run", f"model.base={bases / 'qwen2_vl'}", *lora)
    monkeypatch.setattr(export, "SHARD", "100KB")
    assert exported(tmp_path / "run", tmp_path / "out", "--dtype", "float32").exit_code == 0
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    index = table(tmp_path / "out" / "model.safetensors.index.json")
    assert len(files) > 1 and set(index["weight_map"].values()) == set(files)
    assert index["weight_map"].keys() == weights(tmp_path / "out").keys()
    merged, _ = opening.loaded(tmp_path / "run")
    saved = run_folder.configuration(tmp_path / "run")
    assert saved is not None
    trained, _ = setup.load_run(tmp_path / "run", saved)
    samples = [tb.region(0), tb.plain(1)]
    for one, other in zip(trained.eval().logits(samples), merged.eval().logits(samples), strict=True):
        assert torch.allclose(one, other, atol=1e-5), "LoRA beside its layers, and in them"
    again = tmp_path / "again"
    real.started(bases, embedded_corpus, again, f"model.base={tmp_path / 'out'}", "optim.lr=0.0")
    next_one, words = opening.loaded(again)
    assert words.tokenizer.to_str() == opening.loaded(tmp_path / "run")[1].tokenizer.to_str()
    theirs = next_one.vlm.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in merged.vlm.state_dict().items())


def test_nothing_is_overwritten_and_nothing_half_is_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "of a killed one").touch()
    (step,) = run.glob("step-*")
    with monkeypatch.context() as full:

        def no_space(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("huggingface_hub.save_torch_state_dict", no_space)
        found = exported(step, out)
    sentence = "cannot be written (No space left on device); make room for it, or give another folder with --out."
    assert (found.exit_code, found.stderr) == (1, f"Error: {out}: {sentence}\n")
    assert not list(tmp_path.iterdir())
    assert exported(step, out).exit_code == 0
    files = {path.name for path in out.iterdir()}
    assert "of a killed one" not in files and {"config.json", "model.safetensors", "README.md"} < files
    found = exported(step, out)
    assert (found.exit_code, found.stderr) == (1, f"Error: {out}: is there already; give a new folder with --out.\n")
    with monkeypatch.context() as stopped:
        stopped.setattr(export, "export", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        found = exported(step, tmp_path / "new")
    assert (found.exit_code, found.stderr) == (130, f"Error: Interrupted; {tmp_path / 'new'} is not written.\n")
    found = exported(tmp_path / "nowhere", tmp_path / "new")
    sentence = f"Error: {tmp_path / 'nowhere'}: no such folder; give the --out of a run.\n"
    assert (found.exit_code, found.stderr) == (2, sentence)
    sentence = (
        f"Error: {out}: an exported model and no run; give the run that it was made from, or the whole model with "
        "--weights and --config.\n"
    )
    before = (out / "config.json").read_bytes()
    for taken in (exported(out, tmp_path / "new"), CliRunner().invoke(train.main, ["--out", str(out)])):
        assert (taken.exit_code, taken.stderr) == (2, sentence)
    assert (out / "config.json").read_bytes() == before


def test_the_weights_of_an_older_checkpoint_are_enough(run: Path, stock: Path, tmp_path: Path) -> None:
    """As `run.keep_weights` leaves them, without optimiser and state."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("optimizer.pt", "state.json"))
    (copy / "step-0000001").rename(copy / "weights-0000001")
    assert exported(copy / "weights-0000001", tmp_path / "out").exit_code == 0
    before, after = weights(stock), weights(tmp_path / "out")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_what_a_stock_class_does_otherwise_is_said(bases: Path, tmp_path: Path) -> None:
    """SAM, whose base has a whole SamModel; positions and pixels as in the reference."""
    more = ("model.positions_1d=true", "model.pixels=reference", "optim.steps=1", "data.rows=2")
    base = f"model.base={bases / 'qwen2_vl'}"
    rows = [row(f"a/{n}", f"<image>\n{n}", action_turn("sam"), "<seg_image>", "red", views=SEEN) for n in range(3)]
    Image.new("RGB", (80, 60), "red").save(data := io.BytesIO(), "PNG")
    for made in rows:
        made["images"] = [{"bytes": data.getvalue(), "path": "0.png"}]
    corpus = write_shards(tmp_path / "corpus", rows, files=1)
    real.started(bases, corpus, tmp_path / "run", base, *more, name="vpt_2b_sam")
    assert exported(tmp_path / "run", tmp_path / "out").exit_code == 0
    about = (tmp_path / "out" / "README.md").read_text()
    assert "trained with `model.positions_1d`" in about and "(nearest neighbour)" in about
    assert exported(tmp_path / "run", tmp_path / "whole", "--form", "published").exit_code == 0
    assert "This is the whole model, with sam and its projector." in (tmp_path / "whole" / "README.md").read_text()
    places = (base, f"model.sam={bases / 'sam'}")
    whole, _ = opening.published(tmp_path / "whole", "vpt_2b_sam", places, dtype="bfloat16")
    mine, _ = opening.loaded(tmp_path / "run", dtype="bfloat16")
    theirs = whole.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in mine.state_dict().items())
