"""A headless Chromium, driven over a pair of pipes by the DevTools protocol: no driver, no port, only the browser.

https://chromedevtools.github.io/devtools-protocol/ with ``--remote-debugging-pipe``: JSON, a NUL after each message.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.capabilities import SLOWNESS

PATIENCE = 20.0 * SLOWNESS
"""Seconds for whatever is waited for."""
FLAGS = (
    *("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars"),
    # It is to ask for nothing of its own accord.
    *("--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"),
    "--host-resolver-rules=MAP *.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *("--disable-default-apps", "--disable-extensions", "--no-proxy-server", "--force-color-profile=srgb"),
)


class Broken(AssertionError):
    """The browser, or a script in it, failed."""


class Browser:
    """One process, with whatever pages are opened in it."""

    def __init__(self, profile: Path) -> None:
        """Start it; ``profile`` is a directory for what it keeps."""
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # As the protocol has it: it reads from 3 and writes to 4.
        command = f'exec chromium "$@" 3<&{theirs_in} 4>&{theirs_out} 2>/dev/null'
        arguments = ["bash", "-c", command, "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(arguments, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = itertools.count(1)
        self._half = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        """All that were told, in their order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """What the browser returns; ``Broken`` if it refuses."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while number not in self._answers:
            if not self.listen(deadline - time.monotonic()):
                raise Broken(f"no answer to {method}")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise Broken(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def listen(self, seconds: float) -> bool:
        """Wait for the browser to say something, no longer than this; whether it did."""
        if not select.select([self._read], [], [], max(0.0, seconds))[0]:
            return False
        data = os.read(self._read, 1 << 20)
        if not data:
            raise Broken("the browser is gone")
        *messages, self._half = (self._half + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self.events.append(message)
        return True

    def page(self, **looks: Any) -> Page:
        """An empty one; ``looks`` as ``Page.look`` takes them."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            page.call(f"{domain}.enable")
        page.look(**looks)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        """Made by ``Browser.page``."""
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """As ``Browser.call``, about this page."""
        return self._browser.call(method, self._session, **params)

    def look(self, *, width: int = 1200, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """Be shown on a screen of this size, to somebody who likes it dark or not, and nothing moving."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def close(self) -> None:
        """Away with it."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def open(self, url: str) -> None:
        """Begin to load ``url``."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression, or of a promise of it; ``Broken`` with what it throws."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise Broken(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of an expression as soon as it is a true one."""
        deadline = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            if time.monotonic() > deadline:
                raise Broken(f"never came true: {script}\n{self.text('body')}")
            self._browser.listen(0.05)
        return value

    def wait(self, seconds: float) -> None:
        """Let time pass, for pictures of what goes on."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._browser.listen(left)

    def text(self, selector: str) -> str:
        """What is to be read there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, code: int) -> None:
        """A key on the keyboard, wherever the focus is."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            said = {"text": "\r"} if kind == "char" and key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **said)

    def complaints(self) -> list[str]:
        """Whatever the browser found fault with: errors, warnings, violations of the policy."""
        found = []
        for method, said in self._said("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            if method != "Runtime.consoleAPICalled" or said["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(said))
        return found

    def asked(self) -> list[str]:
        """All addresses that were asked for."""
        return [said["request"]["url"] for _, said in self._said("Network.requestWillBeSent")]

    def headers(self, url: str) -> Mapping[str, str]:
        """Of the answer that came from ``url``, with small names."""
        answers = [said["response"] for _, said in self._said("Network.responseReceived")]
        found = next(answer for answer in answers if answer["url"] == url)
        return {name.lower(): value for name, value in found["headers"].items()}

    def picture(self, *, height: int | None = None) -> bytes:
        """A PNG of the page, all of it unless ``height`` is less."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height or 1e9), "scale": 1}
        made = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(made["data"])

    def _said(self, *methods: str) -> Iterator[tuple[str, dict[str, Any]]]:
        self.run("0")  # whatever was told before has come by then
        for event in self._browser.events:
            if event.get("sessionId") == self._session and event["method"] in methods:
                yield event["method"], event["params"]


@contextmanager
def opened(browser: Browser, url: str, **looks: Any) -> Iterator[Page]:
    """A page at ``url`` that has drawn what it was told first."""
    page = browser.page(**looks)
    try:
        page.open(url)
        page.until("document.querySelector('main')?.hidden === false")
        yield page
    finally:
        page.close()
