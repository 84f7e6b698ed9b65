"""The documentation is executed: what a page tells a newcomer to type works, and what it lists is complete.

Each page runs in a scratch folder that holds `raw` (the synthetic raw root) and `docs`; `helpers/pages.py` runs it.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from helpers import pushing, undrawn
from helpers.hub.client import environment as on_hub
from helpers.pages import DOCS, ROOT, Scratch, blocks, check_output, check_set_up, read, run_page
from PIL import Image
from test_layers import ROOMS
from test_layers import TRAINER as TRAINER_ROOMS

from vpt_data.cli.main import main
from vpt_data.corpus.manifest import Manifest
from vpt_data.dialogue.tokens import carries_loss, token_ids
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.schema import SAMPLE, Reason, Repair
from vpt_data.sources import SOURCES
from vpt_data.synthetic import write_sample
from vpt_data.upstream.catalog import upstreams

INDEX = DOCS / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
#: test_sources_own.py runs this one: it also asks what the three corpora hold.
RUN_HERE = [page for page in PAGES if page.name != "own-data.md"]
#: The pages whose plots are drawn.
DRAWN = {"README.md", "statistics.md"}
KINDS = {"sh", "bash", "python", "toml", "diff", "text", "output"}
TRAINER = [f"python -m trainer.{name}" for name in ("run", "generate", "evaluate", "export")]


def tables(page: Path, heading: str) -> list[list[str]]:
    """The cells of all table rows below a heading, without header and ruler."""
    text = re.split(rf"^#+ {re.escape(heading)}$", read(page), flags=re.MULTILINE)[1]
    lines = re.split(r"^#+ ", text, flags=re.MULTILINE)[0].splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def names(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# Pages are run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_the_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, sample_root: Path) -> None:
    listed = blocks(page)
    if page.name == "add-a-source.md" and "museum" in SOURCES:
        pytest.skip("the steps of this page are done already")
    scratch = Scratch(tmp_path, sample_root, own_package=any(block.kind == "diff" for block in listed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpt_data.api.write_sample", functools.partial(write_sample, rows=200))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        if page.name not in DRAWN:
            undrawn.undraw_plots(patch.setattr)
        if page.name == "publish.md":  # README.md pushes a card with its pictures
            undrawn.undraw(patch.setattr)
        if not any(block.kind == "sh" and "push-to-hub" in block.text for block in listed):
            run_page(listed, scratch)
            return
        with pushing.hub(tmp_path, patch) as hub:
            del scratch.environment["HF_HUB_OFFLINE"]
            scratch.environment |= on_hub(hub.url, tmp_path / "hf", PATH=scratch.environment["PATH"])
            run_page(listed, scratch)


def test_the_set_up_check_sees_what_is_not_there() -> None:
    check_set_up(["make", "demo"])
    check_set_up(["pip", "install", "-e", ".[dev]"])
    with pytest.raises(AssertionError, match="the Makefile has no target dmeo"):
        check_set_up(["make", "dmeo"])
    with pytest.raises(AssertionError):
        check_set_up(["pip", "install", "vpt-data[nonsense]"])
    with pytest.raises(AssertionError, match="the wheel has another version"):
        check_set_up(["pip", "install", "dist/vpt_data-9.9.9-py3-none-any.whl"])


def test_the_output_check_sees_another_output() -> None:
    check_output("a 1\nfingerprint: ...\n", "a 1\nfingerprint: 8d\n")
    with pytest.raises(AssertionError, match="the command prints"):
        check_output("a 1\n", "a 2\n")


# Pages are whole -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_has_a_kind_we_know(page: Path) -> None:
    text = read(page)
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(page))
    assert {block.kind for block in blocks(page)} <= KINDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(there), re.MULTILINE)
            plain = {re.sub(r"[^\w -]", "", heading).strip().lower() for heading in headings}
            assert anchor in {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_knows_a_machine(page: Path) -> None:
    machine = r"(?<![\w.])/(?:home|Users|root|work|tmp|mnt|data)/\S*|[A-Z]:\\\S*"
    assert not re.findall(machine, read(page))


def test_every_page_is_reached_from_the_readme_by_the_index() -> None:
    index = read(INDEX)
    assert "(docs/README.md)" in read(ROOT / "README.md")
    assert not [page.name for page in PAGES[2:] if page != INDEX and f"({page.name})" not in index]
    assert re.findall(r"^## (.+)$", index, re.MULTILINE) == ["Start", "Reference", "Background", "Contribute"]


def test_the_glossary_explains_each_term_once() -> None:
    rows = [line.split("|")[1].strip() for line in read(DOCS / "glossary.md").splitlines() if line.startswith("| ")]
    terms = [term for row in rows if row != "term" for term in row.split(", ")]
    assert len(terms) == len(set(terms))
    assert {
        "raw root", "upstream", "source", "data set", "take", "template", "look", "view", "cell", "crop", "reference",
        "embed", "claim", "quota", "partition", "block", "row group", "fingerprint", "seal",
    } <= set(terms)  # fmt: skip


def test_the_readme_is_short_and_so_is_the_recipe_in_it() -> None:
    # Two tables have a line for each source and each command.
    assert len(read(ROOT / "README.md").splitlines()) - len(SOURCES) - len(main.commands) <= 190
    [own] = [block for block in blocks(ROOT / "README.md") if block.kind == "toml"]
    assert len(own.text.splitlines()) < 10


# Lists are complete ----------------------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_are_what_the_code_says(page: Path) -> None:
    text = read(page)
    assert script("generate").generated(text) == text, f"{page.name} is out of date; run `python docs/generate.py`"


def test_a_part_that_is_out_of_date_is_seen() -> None:
    text = read(DOCS / "cli.md")
    generate = script("generate")
    assert generate.generated(text.replace("--license-policy", "--licence")) == text
    assert {found["name"] for page in PAGES for found in generate.PART.finditer(read(page))} == set(generate.PARTS)


def test_the_readme_lists_every_command_and_the_page_of_commands_every_option() -> None:
    listed = [names(row[:1])[0] for row in tables(ROOT / "README.md", "Commands")]
    assert sorted(listed) == sorted([*(f"vpt-data {name}" for name in main.commands), *TRAINER])
    for name, command in main.commands.items():
        shown = set(names([cell for row in tables(DOCS / "cli.md", f"vpt-data {name}") for cell in row[:1]]))
        flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        assert shown == {flag for flag in flags if flag.startswith("-")}


def test_every_command_and_option_has_help() -> None:
    lacking = [f"{name}: no help" for name, command in main.commands.items() if not command.help]
    for name, command in main.commands.items():
        options = [param for param in command.params if param.param_type_name == "option"]
        lacking += [f"{name} {param.opts[0]}" for param in options if not getattr(param, "help", None)]
    assert not lacking


@pytest.mark.parametrize(("rooms", "heading"), [(ROOMS, "Rooms"), (TRAINER_ROOMS, "The trainer")])
def test_every_room_and_root_file_is_listed_in_the_order_of_imports(rooms: list[str], heading: str) -> None:
    assert [name for row in tables(DOCS / "architecture.md", heading) for name in names(row[:1])] == rooms


def test_every_function_and_file_that_the_architecture_names_exists() -> None:
    text = read(DOCS / "architecture.md")
    named = re.findall(r"`((?:vpt_data|trainer)/[\w/]+\.py): (\w+)`", text)
    assert len(named) > 15
    for file, name in named:
        defined = {getattr(node, "name", None) for node in ast.parse(read(ROOT / file)).body}
        assert name in defined, f"{file} defines no {name}; correct docs/architecture.md"
    for file in re.findall(r"`((?:vpt_data|trainer|tests)/[a-z_/]+\.py)`", text):
        assert (ROOT / file).is_file(), f"there is no {file}; correct docs/architecture.md"


def test_the_readme_lists_every_source_with_its_rows_and_licence() -> None:
    listed = {names(row[:1])[0]: row[1:3] for row in tables(ROOT / "README.md", "Sources")}
    assert set(listed) == set(SOURCES)
    for name in SOURCES.keys() & upstreams().source.keys():
        upstream = upstreams().source[name]
        rows, license_ = listed[name]
        assert rows == f"{sum(files.rows or 0 for files in upstream.dataset.values()):,}"
        assert license_.split(" ")[0] == upstream.license


def test_the_format_page_is_complete() -> None:
    page = DOCS / "format.md"
    columns = {names(row[:1])[0]: names(row[1:2])[0] for row in tables(page, "Columns")}
    assert columns == {field.name: str(field.type).replace("item: ", "") for field in SAMPLE}
    assert [names(row[:1])[0] for row in tables(page, "Why a record is not there")] == list(Reason)
    repaired = [names(row[:1])[0] for row in tables(page, "What was repaired")]
    assert repaired == [str(repair.name).lower() for repair in Repair]
    assert [names(row[:1])[0] for row in tables(page, "manifest.json")] == list(Manifest.__struct_fields__)
    shown = {names(row[1:2])[0]: names(row[:1])[0] for row in tables(page, "Placeholders and encoders")}
    assert shown == {"vlm": "<image>", **{name: entry.placeholder for name, entry in ENCODERS.items()}}


@pytest.mark.parametrize("encoder", ["dino", "sam", "clip"])
def test_the_token_table_is_that_of_the_code(encoder: str) -> None:
    place = ["dino", "sam", "clip"].index(encoder)
    found: dict[int, tuple[str, bool]] = {}
    for cells in tables(DOCS / "format.md", "Tokens"):
        first, _, last = cells[0].partition("-")
        spelled_out = names([cells[1 + place]]) or names([cells[1]])
        ends = [name.replace("\\", "") for name in spelled_out]
        for number in range(int(first), int(last or first) + 1):
            spelled = ends[0].replace("_0", f"_{number - int(first)}")
            found[number] = (spelled, cells[5] == "yes")
    expected = {number: (token, carries_loss(token)) for token, number in token_ids(encoder).items()}
    assert found == expected
    assert (min(found), max(found)) == (151_657, 151_678)


# The picture -----------------------------------------------------------------------------------------------


def test_the_pictures_are_drawn_and_the_format_page_quotes_a_row(tmp_path: Path, sample_root: Path) -> None:
    drawing = script("draw_sample")
    drawing.draw(sample_root, tmp_path)
    quoted = read(DOCS / "format.md")
    for name in drawing.KINDS:
        with Image.open(tmp_path / f"{name}.png") as new, Image.open(drawing.TARGET / f"{name}.png") as committed:
            assert new.size == committed.size
        assert 5_000 < (drawing.TARGET / f"{name}.png").stat().st_size < 60_000
        assert f"(images/{name}.png)" in quoted
    assert {path.stem for path in drawing.TARGET.glob("*.png")} >= set(drawing.KINDS)
    row = drawing.rows_of_sample(sample_root, tmp_path / "corpus")["sample"]
    view, info = row["views"][1], row["image_info"][0]
    for part in (
        row["question"],
        row["messages"][1]["content"],
        row["messages"][3]["content"],
        f"box {view['box']}, cells {view['cells']}",
        f"width: {info['width']}, height: {info['height']}",
    ):
        assert part in quoted
