"""A headless browser for tests of pages: Chromium or Chrome, where one is present."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--virtual-time-budget=20000"]


def run_in_page(page: str, script: str) -> Any:
    """The value that `script`, the body of a function, returns in `page` once it has loaded, as JSON.

    An exception in the script, and any in the page, is an AssertionError with its message.
    """
    assert BROWSER is not None
    test = f"""<script>
    const answer = (value) => {{ document.body.textContent = "ANSWER" + JSON.stringify(value) + "END"; }};
    try {{ answer({{ value: (() => {{ {script} }})() }}); }}
    catch (error) {{ answer({{ error: String(error.stack) }}); }}
    </script>"""
    first = """<script>window.addEventListener("error", (event) => {
      document.body.textContent = "ANSWER" + JSON.stringify({ error: event.message }) + "END"; });</script>"""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "page.html"
        file.write_text(page.replace("<body>", f"<body>{first}", 1).replace("</body>", f"{test}</body>"))
        command = [BROWSER, *OPTIONS, f"--user-data-dir={directory}/profile", "--dump-dom", file.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    text = result.stdout.partition("ANSWER")[2].rpartition("END")[0]
    assert text, result.stdout[-2000:] + result.stderr[-2000:]
    answer = json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "error" not in answer, answer["error"]
    return answer.get("value")
