"""What a user installs holds the trainer, its configurations, and the files of the page."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from trainer.evaluation.published.tables import PAPERS

ROOT = Path(__file__).parents[2]


def test_a_wheel_holds_the_trainer_and_the_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for part in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / part, source / part)
    for part in ("vpt_data", "trainer", "recipes", "manifests"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    [made] = WheelBuilder(str(source)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(made) as packed:
        names = set(packed.namelist())
    configs = {f"trainer/configs/{path.name}" for path in (ROOT / "trainer" / "configs").glob("*.toml")}
    assert "trainer/configs/tiny.toml" in configs
    web = {f"vpt_data/inspect/view/web/{path.name}" for path in (ROOT / "vpt_data/inspect/view/web").iterdir()}
    assert "vpt_data/inspect/view/web/page.html.j2" in web
    configs |= {f"trainer/evaluation/page/web/report.{kind}" for kind in ("css", "html.j2")}
    configs |= {f"trainer/evaluation/published/{name}.toml" for name in PAPERS}
    configs |= {f"trainer/templates/{path.name}" for path in (ROOT / "trainer" / "templates").iterdir()}
    assert configs | web | {"trainer/run.py", "vpt_data/cli/main.py", "vpt_data/_recipes/sample.toml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]
