"""`invertnb run CHAPTER --record`: results with provenance, and no folder of any machine."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from invertnb.build import BuildError
from invertnb.build.record import _without_folder, record
from invertnb.notebook import Parameters, Recording


def chapter(tmp_path, **module):
    return SimpleNamespace(name="toy", root=tmp_path, module=SimpleNamespace(**module))


def test_a_recording_is_written_with_how_it_was_made(tmp_path):
    def recording(parameters):
        return Recording("some", {"weights": "file x.npz"}, {"seed": parameters.seed})

    command = ["invertnb", "run", "toy", "--record", "--set", "weights=/data/of/me/x.npz"]
    toy = chapter(tmp_path, Parameters=Parameters, recording=recording)
    path = record(toy, {"seed": 7}, command)
    assert path == tmp_path / "book" / "recorded" / "toy-some.json"
    entry = json.loads(path.read_text())
    assert entry["results"] == {"seed": 7}
    about = entry["about"]
    assert about["command"].endswith("weights=x.npz") and "/data" not in path.read_text()
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert (about["seed"], about["inputs"]) == (7, {"weights": "file x.npz"})
    assert "thread" in about["device"] and about["seconds"] >= 0


@pytest.mark.parametrize(
    ("word", "kept"),
    [("weights=/home/a=b/x.npz", "weights=x.npz"), ("/home/a=b/x.npz", "x.npz"),
     (r"images=C:\\of me\\y", "images=y"), ("seed=3", "seed=3"), ("--record", "--record"), (7, 7)],
)  # fmt: skip
def test_a_path_is_kept_without_its_folder(word, kept):
    assert _without_folder(word) == kept


def test_a_chapter_without_recordings_says_so(tmp_path):
    with pytest.raises(BuildError, match="chapter 'toy' has nothing to record"):
        record(chapter(tmp_path, Parameters=Parameters), {}, ["invertnb"])


def test_the_command_line_refuses_to_record_such_a_chapter(toy):
    result = toy.run("run", "layer_as_matrix", "--record")
    assert result.returncode == 1 and "nothing to record" in result.stderr
    assert not list(toy.root.glob("book/recorded/*"))
