"""A page in a real Chromium, driven over the DevTools protocol: scripts, keys, screenshots."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

_DEADLINE = 60.0


class ChromiumPage:
    """An open page.

    Attributes:
        requests: the addresses that it asked for, those of its own data left out.
        problems: the errors that its scripts raised, or that the browser logged.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.requests: list[str] = []
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and keep what the page tells meanwhile."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_DEADLINE):
            while True:
                message = await self._socket.receive_json()
                self._note(message)
                if message.get("id") == number:
                    return dict(message["result"])

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise's, when it is settled."""
        result = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key and let it go."""
        codes = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "End": 35}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    async def screenshot(self, path: Path, **options: Any) -> None:
        """Write what is in sight as a file; ``options`` are the protocol's."""
        result = await self.call("Page.captureScreenshot", **options)
        path.write_bytes(base64.b64decode(result["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                address = told["request"]["url"]
                if not address.startswith("data:"):
                    self.requests.append(address)
            case "Runtime.exceptionThrown":
                self.problems.append(str(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.problems.append(told["entry"]["text"])


@asynccontextmanager
async def open_page(
    address: str, chromium: Sequence[str | Path], home: Path, width: int = 1280, height: int = 900
) -> AsyncIterator[ChromiumPage]:
    """Open a page.

    Args:
        address: as ``file:///tmp/report.html``.
        chromium: the result of :func:`tests.support.browser.install_chromium`.
        home: a folder for what Chromium writes.
        width, height: of the window, in pixels.
    """
    profile = home / "page-profile"
    port_file = profile / "DevToolsActivePort"
    port_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [*chromium, f"--user-data-dir={profile}", "--hide-scrollbars", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(home)},
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            while not port_file.exists() or "\n" not in port_file.read_text():
                await asyncio.sleep(0.05)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                (target,) = [one for one in await reply.json() if one["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = ChromiumPage(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.call(f"{domain}.enable")
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width, height=height, deviceScaleFactor=1, mobile=False,
                )  # fmt: skip
                await page.call("Page.navigate", url=address)
                async with asyncio.timeout(_DEADLINE):
                    while not await page.evaluate(
                        "location.href !== 'about:blank' && document.readyState === 'complete'"
                    ):
                        await asyncio.sleep(0.02)
                yield page
    finally:
        process.kill()
        process.wait()
