"""An explorer in a real JupyterLab: run the notebook, move the slider, see picture and values."""

import json
import os
import subprocess
import sys
import time

import nbformat
import pytest

TOKEN = "reader"
START_LIMIT = 120
CELL = """
import numpy as np
from invertnb.notebook import Choice, Explorer, Slider, View, figure


def wave(k, way):
    if k == 4:
        raise ArithmeticError("no wave of frequency four")
    fig, ax = figure()
    ax.plot(np.cos(np.linspace(0, k, 50)))
    return View(fig, {"frequency": k})


Explorer(
    "waves",
    [Slider("k", [1, 9], "frequency k", live=range(1, 10)), Choice("way", ["up", "down"], "way")],
    wave,
    alt="Wave of frequency {k}, {way}",
)
"""


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab server with settings of its own; gives the address of a fresh notebook."""
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, work / "waves.ipynb")
    variables = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    variables += ("JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    places = {name: str(tmp_path / name.lower()) for name in variables}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.root_dir={work}", "--LabApp.expose_app_in_browser=True"]
    log = tmp_path / "server.log"
    with log.open("w") as sink:
        server = subprocess.Popen(command, env=os.environ | places, stdout=sink, stderr=sink)
    try:
        yield address(tmp_path / "jupyter_runtime_dir", server, log)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def address(runtime, server, log) -> str:
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit and server.poll() is None:
        for info in runtime.glob("jpserver-*.json"):
            try:
                base = json.loads(info.read_text())["url"]
            except json.JSONDecodeError:  # still being written
                continue
            return f"{base}lab/tree/waves.ipynb?token={TOKEN}&reset"
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


# Run before its kernel is there, a notebook asks which one to take.
READY = """() => {
  const context = window.jupyterapp?.shell?.currentWidget?.context;
  return context?.isReady && context.sessionContext.session?.kernel?.status === "idle";
}"""
FIELD = ".jp-OutputArea .invertnb-explorer"


def test_slider_moves_picture_and_values_in_jupyterlab(lab, visit):
    seen = visit(lab)
    page = seen.page
    page.set_default_timeout(60_000)
    page.wait_for_function(READY)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    root = page.locator(FIELD)
    root.wait_for()
    picture, values = root.locator("img"), root.locator("dl")
    assert picture.get_attribute("alt") == "Wave of frequency 1, up"
    assert values.inner_text().split() == ["frequency", "1"]
    first = picture.get_attribute("src")

    page.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.locator(f"{FIELD} img[alt='Wave of frequency 2, up']").wait_for()
    assert values.inner_text().split() == ["frequency", "2"]
    assert picture.get_attribute("src") != first

    page.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    page.locator(f"{FIELD} img[alt='Wave of frequency 3, up']").wait_for()
    page.keyboard.press("ArrowRight")
    alert = root.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "ArithmeticError: no wave of frequency four"
    assert picture.count() == values.count() == 0

    page.keyboard.press("ArrowRight")
    page.locator(f"{FIELD} img[alt='Wave of frequency 5, up']").wait_for()
    page.get_by_role("button", name="down", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator(f"{FIELD} img[alt='Wave of frequency 5, down']").wait_for()
    assert seen.outside == []
