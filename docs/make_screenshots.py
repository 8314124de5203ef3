"""Takes the README's pictures from a real run, with headless Chromium.

    mlp run flight_assistant --as-of 2013-03-31
    python docs/make_screenshots.py flight_assistant

Starts a webserver of its own on the home that ML_PLATFORM_HOME names, looks at what the last run left there, and
writes docs/images/*.png. With `--console http://127.0.0.1:8080` it takes the picture of the console instead, from a
gateway that runs, best while a canary is open. Needs playwright and Chromium (`playwright install chromium`, or
/usr/bin/chromium).
"""

import argparse
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import FloatRect, Page, ViewportSize, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resources.runs import open_instance  # noqa: E402 - the Dagster layer is no installed package
from resources.state import home_at  # noqa: E402

PATIENCE_MS = 60_000
GRAPH: ViewportSize = {"width": 2900, "height": 560}
WITHOUT_NAVIGATION: FloatRect = {"x": 240, "y": 0, "width": 2660, "height": 560}
PAGE: ViewportSize = {"width": 1500, "height": 1000}
TALL_PAGE: ViewportSize = {"width": 1500, "height": 2000}
CONSOLE: ViewportSize = {"width": 1240, "height": 1330}
TERMINAL_COLUMNS = 160
COLOURS = {r"\bPASS\b|✓": "bold green", r"\b(FAIL|ERROR|INCONCLUSIVE)\b": "bold red", r"canary|held": "bold cyan"}


def take_pictures(product: str, images: Path, chromium: str | None) -> None:
    """Writes asset_graph, gate_verdict, eval_summary, evaluation_report and run as PNG."""
    images.mkdir(parents=True, exist_ok=True)
    with webserver() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=GRAPH)
        page.set_default_timeout(PATIENCE_MS)
        asset_graph(page, url, product, images / "asset_graph.png")
        page.set_viewport_size(PAGE)
        asset_page(page, url, f"{product}/gate_verdict", images / "gate_verdict.png")
        page.set_viewport_size(TALL_PAGE)
        asset_page(page, url, f"{product}/eval_report", images / "eval_summary.png", markdown="summary")
        report_page(page, product, images / "evaluation_report.png")
        run_page(page, product, images / "run.png")
        browser.close()


def take_console_picture(url: str, key: Path, product: str, picture: Path, chromium: str | None) -> None:
    """Writes the console's page of a product as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=CONSOLE)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{url}/console/products/{product}")
        page.get_by_label("API key").fill(key.read_text(encoding="utf-8").strip())
        page.get_by_role("button", name="Sign in").click()
        page.locator("#decision .word").wait_for()
        page.screenshot(path=picture)
        browser.close()


def asset_graph(page: Page, url: str, product: str, picture: Path) -> None:
    """The chain of a product with the state of its assets."""
    page.goto(f"{url}/locations/ml_platform/asset-groups/{product}/lineage")
    page.get_by_text("canary_alias").first.wait_for()
    page.get_by_text("1 / 1 Passed").first.wait_for()
    settle(page)
    page.screenshot(path=picture, clip=WITHOUT_NAVIGATION)


def asset_page(page: Page, url: str, asset: str, picture: Path, markdown: str | None = None) -> None:
    """The page of an asset; with `markdown`, that metadata entry unfolded."""
    page.goto(f"{url}/assets/{asset}")
    page.get_by_text("Latest materialization").first.wait_for()
    page.get_by_text("sha256").first.wait_for() if markdown else page.get_by_text("release_id").first.wait_for()
    if markdown is not None:
        page.get_by_text("[Show Markdown]").first.click()
        page.locator("img[src^='data:image/svg+xml']").first.wait_for()
    settle(page)
    page.screenshot(path=picture)


def report_page(page: Page, product: str, picture: Path) -> None:
    """The evaluation report of the product's newest day, as people open it."""
    home = home_at()
    newest = max((home.manifests / product / "eval_report").glob("*.json"))
    value = json.loads(newest.read_text(encoding="utf-8"))["value"]
    page.goto((home.artifacts / "eval_report" / value["value_sha256"] / "report.html").as_uri())
    settle(page)
    page.screenshot(path=picture)


def run_page(page: Page, product: str, picture: Path) -> None:
    """The words of `mlp run` for the product's newest day, run again: every artifact is found, the gates are shown."""
    day = max((home_at().manifests / product / "eval_report").glob("*.json")).stem
    command = ["mlp", "run", product, "--as-of", day]
    said = subprocess.run(
        [str(Path(sys.executable).parent / "mlp"), *command[1:]],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(TERMINAL_COLUMNS), "ML_PLATFORM_HOME": str(home_at().root)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    words = Text(said.replace(f"{home_at().root}", ".ml_platform"))
    for pattern, style in COLOURS.items():
        words.highlight_regex(pattern, style)
    console = Console(record=True, width=TERMINAL_COLUMNS, file=io.StringIO())
    console.print(words)
    page.set_content(console.export_svg(title=" ".join(command)))
    settle(page)
    page.locator("svg").first.screenshot(path=picture)


def settle(page: Page) -> None:
    """Waits until two looks at the page are the same: animations are over, pictures are there."""
    before, deadline = b"", time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        page.wait_for_timeout(1_500)
        now = page.screenshot()
        if now == before:
            return
        before = now


@contextmanager
def webserver() -> Iterator[str]:
    """A Dagster webserver on a free port of loopback; its address."""
    home = home_at()
    with open_instance(home):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-w", str(ROOT / "workspace.yaml")]
    environment = {**os.environ, "DAGSTER_HOME": str(home.dagster), "ML_PLATFORM_HOME": str(home.root)}
    process = subprocess.Popen(
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/server_info")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def wait_until_it_answers(url: str) -> None:
    """Returns once the address answers; raises TimeoutError when it does not."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own address
                return
        except OSError:
            time.sleep(0.25)
    raise TimeoutError(f"{url} did not answer within {PATIENCE_MS // 1000} s")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("product", nargs="?", default="flight_assistant")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--console", metavar="URL", help="a gateway that runs: only its console's picture is taken")
    parser.add_argument("--key", type=Path, default=home_at().keys / "local_api_key", help="the file with an API key")
    options = parser.parse_args()
    if options.console:
        picture = options.out / "console.png"
        take_console_picture(options.console, options.key, options.product, picture, options.chromium)
        sys.stdout.write(f"{picture}\n")
        return
    take_pictures(options.product, options.out, options.chromium)
    for picture in sorted(options.out.glob("*.png")):
        sys.stdout.write(f"{picture}\n")


if __name__ == "__main__":
    main()
