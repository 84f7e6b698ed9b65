"""What configurations need by count: the page has what the count says, and the count what training has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from bench import budget
from trainer.model.shapes import SHAPES, rope
from trainer.training import setup

PAGE = Path(__file__).parents[2] / "docs" / "trainer.md"
SMALL = replace(
    SHAPES["qwen2_vl_2b"],
    text={
        **SHAPES["qwen2_vl_2b"].text,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": rope(1e6, 2, 3, 3),
    },
    vision={**SHAPES["qwen2_vl_2b"].vision, "depth": 1, "embed_dim": 64, "num_heads": 2, "hidden_size": 64},
)


def test_the_table_of_the_page_is_that_of_the_count_and_everything_fits() -> None:
    table = budget.table()
    assert table.strip() in PAGE.read_text(encoding="utf-8")
    for row in table.strip().splitlines()[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        card = float(cells[1].removeprefix("8 x ").removesuffix(" GB"))
        assert float(cells[7]) < 0.95 * card, cells[0]
    for name in ("alignment_sam", "projector_tune"):
        assert float(budget.line(name, 1, "H100")[7]) < 76


@pytest.mark.parametrize("lora", ["lora.rank=0", "lora.rank=4"])
def test_the_count_of_weights_and_training_is_what_they_take(lora: str) -> None:
    train = ['train=["*.lora_*", "projectors.*"]'] if lora.endswith("4") else []
    with mock.patch.dict(SHAPES, {"qwen2_vl_2b": SMALL}):
        config = budget.shaped("vpt_2b_clip", [lora, *train])
        found = budget.budget(config, 1, 1e12)
        divided = budget.budget(budget.shaped("vpt_2b_clip", [lora, *train, "run.parallel=fsdp2"]), 4, 1e12)
        few = budget.budget(budget.shaped("vpt_2b_clip", [lora, *train, "run.checkpointing=true"]), 1, 1e12)
        model = setup.make_model(config, range(budget.VOCABULARY))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for weight in trained:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = [optimizer.state[weight][key] for weight in trained for key in ("exp_avg", "exp_avg_sq")]
    grads = [weight.grad for weight in trained if weight.grad is not None]
    assert found.training == sum(tensor.nbytes for tensor in [*grads, *moments])
    frozen = sum(weight.nbytes / 2 for weight in model.parameters() if not weight.requires_grad)
    assert found.weights == sum(1.5 * weight.nbytes for weight in trained) + frozen
    assert divided.training < found.training
    assert few.kept < found.kept / 2


def test_a_card_of_a_configuration_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    budget.main(["--config", "vpt_2b_clip", "--cards", "2", "--set", "data.tokens=4096"])
    budget.main(["--config", "projector_tune", "--set", "model.encoder=clip"])
    several, projector = capsys.readouterr().out.splitlines()
    assert several.startswith("`vpt_2b_clip` | 2 x 80 GB | 4,096 | ")
    assert float(projector.split(" | ")[5]) > 10, "layers that are not trained keep states for the projector's gradient"
