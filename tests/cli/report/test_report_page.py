"""The page of 500 photos in a real Chromium, opened from its file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from camserve_cli.report import making
from camserve_cli.report.making import ReportCall, make_report
from tests.support.chromium_page import ChromiumPage, open_page
from tests.support.color_resnet import LABELS
from tests.support.report_engine import ColourEngine
from tests.support.report_photos import write_photos

COUNT = 500
pytestmark = pytest.mark.env
Visit = Callable[[Callable[[ChromiumPage], Awaitable[Any]]], Any]

#: Scrolls to the gallery and waits for its cards to be drawn.
TO_GALLERY = """(async () => {
  document.getElementById("gallery").scrollIntoView({ behavior: "instant" });
  for (let n = 0; n < 40; n += 1) await new Promise(requestAnimationFrame);
})()"""
#: How many different colours a canvas has, which is named by what finds it: 1 if it is not drawn.
COLOURS = """((selector) => {
  const canvas = document.querySelector(selector);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """report.html of photos of colours, and one that fails."""
    folder = tmp_path_factory.mktemp("page")
    write_photos(folder / "photos", COUNT)
    (folder / "photos" / "red" / "broken.jpg").write_bytes(b"no photo")

    @contextmanager
    def opened(server: None, store: Path, model: str | None) -> Iterator[ColourEngine]:
        yield ColourEngine(LABELS, {4: 5} if model else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "open_engine", opened)
        call = ReportCall(
            folder=folder / "photos", out=folder / "out", model=None, store=folder, labels=None,
            boxes=None, compare="other", server=None, faithfulness=0, shortcuts=False, fresh=False,
            export=None,
        )  # fmt: skip
        make_report(call, strict=False)
    return folder / "out" / "report.html"


@pytest.fixture
def visit(page: Path, chromium: list[str | Path], tmp_path: Path) -> Visit:
    """Opens the page, does something in it, and checks that nothing went wrong."""

    def run(action: Callable[[ChromiumPage], Awaitable[Any]]) -> Any:
        async def visiting() -> Any:
            async with open_page(f"file://{page}", chromium, tmp_path) as opened:
                result = await action(opened)
                assert opened.problems == []
                # It asks for nothing but itself.
                assert opened.requests == [f"file://{page}"]
                return result

        return asyncio.run(visiting())

    return run


def test_only_the_cards_in_sight_are_in_the_document(visit: Visit) -> None:
    async def look(page: ChromiumPage) -> Any:
        await page.evaluate(TO_GALLERY)
        first = await page.evaluate("document.querySelectorAll('.card').length")
        said = await page.evaluate("document.querySelector('.controls output').textContent")
        await page.evaluate("scrollTo({top: 1e9, behavior: 'instant'})")
        await page.evaluate("new Promise(requestAnimationFrame)")
        last = await page.evaluate("Math.max(...[...document.querySelectorAll('.card')]"
                                   ".map((card) => Number(card.dataset.place)))")  # fmt: skip
        return first, said, last, await page.evaluate(f"{COLOURS}('.card canvas')")

    first, said, last, colours = visit(look)
    assert 0 < first < 60
    assert said == f"{COUNT} of {COUNT} photos"
    assert last == COUNT - 1
    assert colours > 20


def test_filters_and_orders(visit: Visit) -> None:
    choose = """(async (name, value) => {
      const field = document.querySelector(`.controls [name=${name}]`);
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise(requestAnimationFrame);
      return [document.querySelector(".controls output").textContent,
        document.querySelector(".card")?.getAttribute("aria-label")];
    })"""

    async def look(page: ChromiumPage) -> Any:
        await page.evaluate(TO_GALLERY)
        wrong = await page.evaluate(f"{choose}('show', 'wrong')")
        red = await page.evaluate(f"{choose}('class', '0')")
        await page.evaluate(f"{choose}('class', '')")
        changed = await page.evaluate(f"{choose}('show', 'changed')")
        await page.evaluate(f"{choose}('show', 'all')")
        named = await page.evaluate(f"{choose}('text', '0042')")
        await page.evaluate(f"{choose}('text', '')")
        doubtful = await page.evaluate(f"{choose}('sort', 'margin')")
        return wrong, red, changed, named, doubtful

    wrong, red, changed, named, doubtful = visit(look)
    assert wrong[0] == f"{COUNT // 8} of {COUNT} photos"
    assert ", wrong: it shows " in wrong[1]
    assert int(red[0].split()[0]) < COUNT // 8
    assert "red" in red[1]
    # All that are predicted magenta: the other model takes it for cyan.
    assert 60 < int(changed[0].split()[0]) < 120
    assert named[0] == f"1 of {COUNT} photos"
    assert "0042.jpg" in named[1]
    assert "wrong" in doubtful[1]


def test_the_keyboard_walks_the_gallery_and_the_details(visit: Visit) -> None:
    focused = "document.activeElement.getAttribute('aria-label')?.split(':')[0]"
    title = "document.getElementById('detail-title').textContent"

    async def look(page: ChromiumPage) -> Any:
        await page.evaluate(TO_GALLERY)
        await page.evaluate("document.querySelector('.card').focus({preventScroll: true})")
        seen = [await page.evaluate(focused)]
        for key in ("ArrowRight", "ArrowDown", "End"):
            await page.press(key)
            seen.append(await page.evaluate(focused))
        await page.press("Enter")
        seen.append(await page.evaluate(title))
        await page.press("ArrowRight")
        # After the last comes the first.
        seen.append(await page.evaluate(title))
        await page.press("Escape")
        closed = await page.evaluate("document.getElementById('detail').open")
        return seen, closed

    (first, second, below, last, opened, following), closed = visit(look)
    assert (first, second) == ("blue/0002.jpg", "blue/0008.jpg")
    assert below > second
    assert last == opened == "yellow/0495.jpg"
    assert following == first
    assert closed is False


def test_a_wrong_prediction_shows_both_maps(visit: Visit) -> None:
    async def look(page: ChromiumPage) -> Any:
        await page.evaluate("document.querySelector('#confusion .shot').click()")
        await page.evaluate("new Promise((done) => setTimeout(done, 300))")
        captions = await page.evaluate(
            "[...document.querySelectorAll('#detail figcaption')].map((one) => one.textContent)"
        )
        drawn = [
            await page.evaluate(f"{COLOURS}('#detail figure:nth-child({number}) canvas')")
            for number in range(1, 5)
        ]
        return captions, drawn

    captions, drawn = visit(look)
    photo, predicted, true, other = captions
    assert photo == "the photo"
    assert predicted.startswith("predicted: ")
    assert true.startswith("true: ")
    assert other.startswith("the other model: ")
    assert min(drawn) > 20


def test_light_and_dark_are_legible(visit: Visit) -> None:
    contrast = """(() => {
      const canvas = document.createElement("canvas").getContext("2d");
      const light = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
          const share = value / 255;
          return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      const style = getComputedStyle(document.documentElement);
      const of = (name) => light(style.getPropertyValue(name).trim());
      return ["--ink", "--soft", "--accent", "--grave", "--mild"].map((name) => {
        const [low, high] = [of(name), of("--ground")].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
      });
    })()"""

    async def look(page: ChromiumPage) -> Any:
        measured = []
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            await page.call("Emulation.setEmulatedMedia", features=features)
            measured.append(await page.evaluate(contrast))
        return measured

    light, dark = visit(look)
    # What WCAG 2 asks for text, level AA.
    assert min(light) >= 4.5
    assert min(dark) >= 4.5
    assert light != dark


def test_a_narrow_window_does_not_scroll_sideways(
    page: Path, chromium: list[str | Path], tmp_path: Path
) -> None:
    async def look() -> Any:
        async with open_page(f"file://{page}", chromium, tmp_path, 380, 700) as opened:
            await opened.evaluate(TO_GALLERY)
            return await opened.evaluate("document.documentElement.scrollWidth")

    assert asyncio.run(look()) <= 380
