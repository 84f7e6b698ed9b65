"""Draw docs/images/page.png: the page that `vpt-data view` writes, open at one row of the sample corpus.

Everything on it comes from the synthetic raw root of `vpt-data sample`. It needs playwright and Chromium on the PATH
(Debian: `apt-get install chromium`). Run it again when the look of the page changes:

    python docs/draw_page.py
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from vpt_data import recipe
from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.view import document as documents
from vpt_data.inspect.view import page
from vpt_data.inspect.view.choose import Choice
from vpt_data.pipeline import build, plan
from vpt_data.synthetic import write_sample

TARGET = Path(__file__).parent / "images" / "page.png"
#: The row of docs/format.md.
ROW = "textvqa/14e9b287d9ddd80a"
SIZE = ViewportSize(width=1280, height=920)


def page_of_sample(raw: Path, work: Path) -> Path:
    """The page of the corpus that the sample raw root `raw` gives."""
    build.build(plan.make(recipe.load("sample"), raw, "embed", None), work / "sample")
    shown = documents.Shown(open_corpus(work / "sample"), None)
    file = work / "sample.html"
    file.write_text(page.render(documents.document(shown, Choice())), encoding="utf-8")
    return file


def draw(file: Path) -> None:
    """Write the picture of the page in a file."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        shoot(browser, file, TARGET)
        browser.close()


def shoot(browser: Browser, file: Path, target: Path) -> None:
    """Write a screenshot of the page in a file; 256 colours are enough, and a third of the bytes."""
    tab = browser.new_page(viewport=SIZE, color_scheme="light")
    tab.goto(f"file://{file}#id={ROW}")
    tab.wait_for_selector(".stage img[src]")
    tab.evaluate("Promise.all([...document.images].map((img) => img.decode()))")
    shot = Image.open(io.BytesIO(tab.screenshot()))
    tab.close()
    shot.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Make the sample raw root in a temporary folder, the corpus, its page, and the picture."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_sample(raw, rows=200)
        draw(page_of_sample(raw, Path(folder)))


if __name__ == "__main__":
    main()
