"""A page in a real browser, where one is installed: Chromium without a window."""

import json
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

#: Runs after the page's own script, and leaves its answer in the page. Errors of the page's script are answers too.
DRIVER = """
<script>
addEventListener("load", () => {{
  let answer;
  try {{ answer = (() => {{ {code} }})(); }} catch (error) {{ answer = {{ error: String(error) }}; }}
  const place = document.createElement("pre");
  place.id = "answer";
  place.textContent = JSON.stringify({{ answer, errors: window.failures }});
  document.body.replaceChildren(place);
}});
</script>
"""
WATCH = '<script>window.failures = []; addEventListener("error", (event) => failures.push(event.message));</script>'


def ask(file, code, folder):
    """
    Open a page, run `code` in it, and return what this returns. The page's policy, which forbids all scripts but its own, is left
    out of a copy.
    """
    text = file.read_text(encoding="utf-8")
    begin = text.index('<meta http-equiv="Content-Security-Policy"')
    end = text.index(">", begin) + 1
    assert text.count("</body>") == 1
    copy = folder / "driven.html"
    driven = text[:begin] + WATCH + text[end:]
    copy.write_text(driven.replace("</body>", DRIVER.format(code=code) + "</body>"), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'browser'}",
    ]
    command = [CHROMIUM, *options, "--virtual-time-budget=2000", "--dump-dom", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    content = shown.partition('<pre id="answer">')[2].partition("</pre>")[0]
    found = json.loads(content.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["errors"] == []
    return found["answer"]
