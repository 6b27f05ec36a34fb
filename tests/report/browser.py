"""A headless Chromium spoken to over its debugging pipe: what a page asks for, complains about and looks like."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--no-default-browser-check", "--remote-debugging-pipe",
)  # fmt: skip
_SECONDS = 60.0  # after which a browser that says nothing counts as broken


class Page:
    """One page at a given width. `requests` are the addresses asked for, `complaints` errors of page, script and console."""

    def __init__(self, path: Path, *, width: int, dark: bool = False) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._path, self._width, self._dark = path, width, dark
        self._number, self._held, self._session = 0, b"", ""

    def __enter__(self) -> "Page":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # the browser reads its descriptor 3 and writes its descriptor 4
        command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._browser = subprocess.Popen(
            [
                "bash",
                "-c",
                command,
                "bash",
                str(CHROMIUM),
                *_FLAGS,
                f"--user-data-dir={self._profile.name}",
                "about:blank",
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self._read, False)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.terminate()
        self._browser.wait(30)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def _open(self) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=self._width,
            height=900,
            deviceScaleFactor=1,
            mobile=self._width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=self._path.as_uri())
        self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page (asked from outside: the page's own policy allows no script)."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        import base64

        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _until(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            message = self._next()
            if message is None:
                time.sleep(0.01)
                continue
            self._note(message)
            if wanted(message):
                return message
        raise TimeoutError("the browser does not answer")

    def _next(self) -> dict[str, Any] | None:
        while b"\0" not in self._held:
            try:
                self._held += os.read(self._read, 1 << 20)
            except BlockingIOError:
                return None
        first, _, self._held = self._held.partition(b"\0")
        return json.loads(first)

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        if method == "Runtime.exceptionThrown" or (method == "Log.entryAdded" and told["entry"]["level"] != "info"):
            self.complaints.append(json.dumps(told))
        if method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(told["args"]))
