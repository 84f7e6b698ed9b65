"""`python -m trainer.export`: a run as a folder that other programs load.

stock      the language model as the class of transformers, for looks at regions wherever that class runs
published  the whole model under the names of the released VPT weights, for the trainer and the reference code

Weights of LoRA are merged.

What needs torch is imported where it is used, so that `check_packages` can say first that it is not there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer.packages import check_packages
from vpt_data import store
from vpt_data.cli.common import fail, terminable
from vpt_data.dialogue.prompts import REGION_PROMPT
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import OutputError, VptDataError

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.config import Config
    from trainer.model.vpt import VPTModel

SHARD = "5GB"  # of weights, from which on there are several files and an index
TEMPLATES = Path(__file__).parent / "templates"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Folder of a run, or one of its checkpoints."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new folder.")
@click.option(
    "--form",
    type=click.Choice(["stock", "published"]),
    default="stock",
    show_default=True,
    help="The language model for transformers and vLLM, or the whole model under the published names.",
)
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Type of the weights.",
)
def main(checkpoint: Path, out: Path, form: str, dtype: str) -> None:
    """Write a trained model for other programs."""
    try:
        with terminable():
            check_packages()
            export(checkpoint, out, form, dtype)
    except VptDataError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail(f"Interrupted; {out} is not written.", 130)
    click.echo(f"Exported: {out}")


def export(checkpoint: Path, out: Path, form: str = "stock", dtype: str = "bfloat16") -> None:
    """Write the model of a run, or of one of its checkpoints, as a new folder.

    Raises OutputError if there is something at `out` already, or if it cannot be written; then nothing is left there.
    """
    import torch
    from huggingface_hub import save_torch_state_dict

    from trainer.training import base, setup
    from trainer.training.checkpoint import writing

    if out.exists():
        raise OutputError(f"{out}: is there already; give a new folder with --out.")
    config, model, tokenizer, vision = setup.open_run(checkpoint, getattr(torch, dtype))
    tables = {
        "config": _configuration(model.vlm) | {"torch_dtype": dtype},
        "generation_config": _generation(model, tokenizer, form),
        "preprocessor_config": base.processor_of(vision),
    }
    if tables["config"]["model_type"] == "qwen3_vl":  # whose videos would else be those of Qwen2-VL
        tables["video_preprocessor_config"] = {"video_processor_type": "Qwen3VLVideoProcessor"}
    if form == "published":
        tables["config"] |= _published(config, model.vlm, tokenizer)
    with writing(out, "make room for it, or give another folder with --out"), _fresh(out) as folder:
        twins = ["lm_head.weight"]
        weights = _weights(model, form)
        save_torch_state_dict(weights, folder, max_shard_size=SHARD, shared_tensors_to_discard=twins)
        for name, table in tables.items():
            store.write(folder / f"{name}.json", json.dumps(table, indent=2).encode())
        _save_tokenizer(tokenizer, folder)
        readme = _readme(config, model, vision.longest, form)
        store.write(folder / "README.md", readme.encode())
        for path in folder.glob("*.safetensors"):  # they are readable by their owner only
            path.chmod((folder / "README.md").stat().st_mode)


@contextmanager
def _fresh(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes it if all goes well, and else is removed."""
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # a killed export leaves one
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _weights(model: VPTModel, form: str) -> dict[str, Tensor]:
    """What is written, by its name in the file."""
    from trainer.model.weights import published_name

    weights = model.state_dict()
    if form == "published":
        return {published_name(name): weight for name, weight in weights.items()}
    # Qwen2-VL and Qwen2.5-VL: as before transformers 4.52, which later ones read as well. Qwen3-VL came after it.
    later = model.adapter.vlm.config.model_type == "qwen3_vl"
    stock = {name: weight for name, weight in weights.items() if name.startswith("vlm.")}
    return {name.removeprefix("vlm.") if later else published_name(name): weight for name, weight in stock.items()}


def _configuration(vlm: Any) -> dict[str, Any]:
    """`config.json` as the folders of the three families on the Hub have it, which every release and vLLM read.

    With what transformers 5 would write, 4.57 finds neither the rotary embedding nor the tied head. Qwen2-VL and
    Qwen2.5-VL have no `text_config`; Qwen3-VL has, and there transformers 4 looks for `tie_word_embeddings`.
    """
    table = vlm.config.to_diff_dict() | {"architectures": [type(vlm).__name__]}
    text, vision = table.pop("text_config"), table["vision_config"]
    rope = text.pop("rope_parameters")
    for part in (table, text, vision):
        for key in ("transformers_version", "dtype", "layer_types", "rope_parameters"):
            part.pop(key, None)
    for part in (text, vision):
        del part["model_type"]
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    if vlm.config.model_type == "qwen3_vl":
        return table | {"text_config": text | {"tie_word_embeddings": table["tie_word_embeddings"]}}
    kind = rope.pop("rope_type")
    rope["type"] = "mrope" if kind == "default" else kind
    return text | table


def _published(config: Config, vlm: Any, tokenizer: Any) -> dict[str, Any]:
    """The keys of the reference code beside those of the model; its own default would mask questions in evaluation."""
    from trainer.training.base import kinds_of

    ids = {"para_start_id": "<|im_start|>", "para_end_id": "<|im_end|>"}
    for entry in (ENCODERS[kind] for kind in kinds_of(config)):
        ids |= {f"{entry.stem}_image_token_id": entry.image_pad, f"{entry.stem}_action_id": entry.control}
        ids |= {f"{entry.stem}_action_start_id": entry.start}
    return {
        "model_type": f"{vlm.config.model_type}_vpt",
        "architectures": [f"VPT_{type(vlm).__name__}"],
        "vision_encoder_ls": kinds_of(config),
        "projector_scale": config.model.control_tokens,
        "num_inner_forward_run": 2,
        "para_mask_ratio": 0,
        **{key: tokenizer.convert_tokens_to_ids(token) for key, token in ids.items()},
    }


def _generation(model: VPTModel, tokenizer: Any, form: str) -> dict[str, Any]:
    """The most likely token, as vLLM says it as well, which has no `do_sample`; both tokens end an answer."""
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    table = {"do_sample": True, "top_k": 1, "eos_token_id": [end, pad], "pad_token_id": pad}
    starts = [ENCODERS[kind].start for kind in model.projectors]
    if form == "stock" and starts:
        table["suppress_tokens"] = tokenizer.convert_tokens_to_ids(starts)
    return table


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """The tokenizer with the chat template, for transformers 4 as well."""
    from trainer.data.encode import SYSTEM

    # The text that `RowEncoder` writes, for every family: the template of a base may have another system turn.
    tokenizer.chat_template = (TEMPLATES / "chat_template.jinja").read_text(encoding="utf-8").replace("SYSTEM", SYSTEM)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    table = json.loads(path.read_bytes()) | {"chat_template": tokenizer.chat_template}
    for key in ("is_local", "local_files_only"):  # how it was loaded
        table.pop(key, None)
    if names := table.pop("extra_special_tokens", None):
        table["additional_special_tokens"] = names  # the earlier name of the same list
    store.write(path, json.dumps(table, indent=2).encode())


def _readme(config: Config, model: VPTModel, longest: int, form: str) -> str:
    """What the folder is, what it can do, and how the model is asked."""
    from jinja2 import Template

    text = (TEMPLATES / "README.md.j2").read_text(encoding="utf-8")
    known = {"form": form, "longest": longest, "model": config.model, "prompt": REGION_PROMPT}
    encoders = [ENCODERS[kind] for kind in model.projectors]
    return Template(text).render(**known, name=type(model.vlm).__name__, encoders=encoders)


if __name__ == "__main__":
    main(prog_name="python -m trainer.export")
