"""What is recorded of classifiers on features that do not move.

`closed`: ridge classifiers at the sizes of Table 5, by number of filters. `frozen`: softmax
classifiers trained on kept features, beside ridge and the spectrum of their problem. Every result
has a file in a folder of `runs`; what is missing there is computed, `missing=False` only collects.
A file says what it was asked for; one that was asked for something else is refused.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invertnb import notebook
from invertnb.chapters import random_filters as chapter
from invertnb.networks import Labelled
from invertnb.networks import frozen as core
from invertnb.networks.classifier import SAMPLE, Classifier
from invertnb.networks.frozen import Condition, Read, Setting
from invertnb.networks.labelled import open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.ridge import accuracies, moments, ridge
from invertnb.networks.search import RANDOM, TABLE5
from invertnb.networks.training import CALIBRATION, DTYPES, SPLIT_SEED, about, build

DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Numbers of filters of the last layer, by depth, and seeds.
CLOSED = (
    (tuple(2**i for i in range(12)), (0, 1)), ((256, 2048), (0,)), ((128, 1024), (0,)),
)  # fmt: skip
FROZEN = ("(256)5c-2pmax-4pave", "(256)3c-2pmax-(256)3c-2pmax-2pave")
FILTERS = (32, 64, 128, 256)
EPOCHS = (1, 3, 10, 30)
#: (base, dropout): rates. Those of the recorded runs are near 3 and 10; the best lie within.
RATES = {
    ("plain", 0.0): (3.0, 10.0, 30.0, 100.0), ("plain", 0.5): (3.0, 10.0, 30.0),
    ("centered", 0.0): (10.0, 30.0, 100.0, 300.0), ("centered", 0.5): (10.0, 30.0, 100.0),
    ("whitened", 0.0): (0.03, 0.1),
}  # fmt: skip
DROPPED = (0.2, 0.5)  # what dropout of this probability amounts to
PLACES = 97  # eigenvalues that a record keeps, spaced evenly on a logarithmic scale


def settings() -> list[Setting]:
    """Of `frozen`."""
    return [
        Setting(rate, base, dropout)
        for (base, dropout), rates in RATES.items() for rate in rates
    ]  # fmt: skip


def closed(p: chapter.Parameters) -> notebook.Recording:
    """Ridge classifiers on the random networks of Table 5 and on their first filters."""
    folder = Path(p.runs) / "closed"
    points = [
        (text, filters, seed)
        for text, (filters, seeds) in zip(TABLE5["random"], CLOSED, strict=True)
        for seed in seeds
    ]
    data = open_labelled(p.data) if p.missing else None

    def make(text: str, filters: tuple[int, ...], seed: int) -> dict[str, Any]:
        begin, dtype = time.monotonic(), "bfloat16"
        recipe = dataclasses.replace(RANDOM, seed=seed, dtype=dtype)
        sets = {name: (x.to(p.device), y.to(p.device)) for name, (x, y) in _sets(data).items()}
        net = build(parse(text), recipe, sets["train"][0], len(data.classes))
        fits = ridge(net, filters, DECAYS, dtype=DTYPES[dtype], **sets)
        return {
            "architecture": text, "seed": seed, "dtype": dtype, "data": _data(data),
            "fits": [dataclasses.asdict(each) for each in fits],
            "about": _about(p.device, net, begin),
        }  # fmt: skip

    runs = {}
    for text, filters, seed in points:
        name = f"{_slug(text)}-seed{seed}"
        asked = {
            "architecture": text, "seed": seed, "dtype": "bfloat16", "filters": filters,
            "decays": DECAYS, "recipe": dataclasses.asdict(RANDOM),
        }  # fmt: skip
        path = folder / f"{name}.json"
        run = _kept(path, asked, data, lambda: make(text, filters, seed))  # noqa: B023
        if run is not None:
            runs[name] = run
    return _collected("closed", p, runs, len(points))


def frozen(p: chapter.Parameters) -> notebook.Recording:
    """Softmax classifiers on kept features of two random networks, beside ridge."""
    folder, asked = Path(p.runs) / "frozen", 0
    data = open_labelled(p.data) if p.missing else None
    runs: dict[str, Any] = {}
    # Short trainings of both networks come before long ones of the first.
    for what in ("condition", "ridge", "few", "dropout", *(f"epochs{epochs}" for epochs in EPOCHS)):
        for text in FROZEN:
            name, asked = f"{_slug(text)}-{what}", asked + 1
            make = lambda: _frozen(p, data, text, what, folder)  # noqa: B023, E731
            run = _kept(folder / f"{name}.json", _asked(text, what), data, make)
            if run is not None:
                runs[name] = run
    return _collected("frozen", p, runs, asked)


def _asked(text: str, what: str) -> dict[str, Any]:
    """All that decides a result of `frozen`, besides the data."""
    parts = {
        "condition": {"places": PLACES}, "dropout": {"dropout": DROPPED},
        **dict.fromkeys(("ridge", "few"), {"filters": FILTERS, "decays": DECAYS}),
    }  # fmt: skip
    trained = {"settings": [dataclasses.asdict(each) for each in settings()]}
    asked = {"architecture": text, "what": what, "recipe": dataclasses.asdict(RANDOM)}
    return asked | parts.get(what, trained)


def _frozen(
    p: chapter.Parameters, data: Labelled, text: str, what: str, folder: Path
) -> dict[str, Any]:
    """One result: `what` is "condition", "ridge", "few", "dropout" or "epochs<number>"."""
    begin, sets, few = time.monotonic(), _sets(data), what == "few"
    net = build(parse(text), RANDOM, sets["train"][0], len(data.classes))
    if few:
        few_classes(net, sets["train"][0])
    classes = len(data.classes)
    slug = _slug(text) + "-few" * few
    kept = {
        name: (_features(net, x, folder / "features" / f"{slug}-{name}.npy"), y)
        for name, (x, y) in sets.items()
    }
    found: dict[str, Any] = {"architecture": text, "what": what, "data": _data(data)}
    if what == "condition":
        found |= _packed(core.condition(moments(Read(net), *kept["train"], classes, torch.float32)))
    elif what in ("ridge", "few"):
        fits = ridge(Read(net), FILTERS, DECAYS, dtype=torch.float32, **kept)
        found["fits"] = [dataclasses.asdict(each) for each in fits]
    elif what == "dropout":
        # To second order dropout adds p / (1 - p) sum_j w_j^2 E f_j^2 to the loss: here, for the
        # mean over j, as ridge's decay.
        mean, spread = core.scale(kept["train"][0])
        energy = 1 + float(mean.square().sum()) / spread**2
        decays = [p / (1 - p) * energy for p in DROPPED]
        sums = moments(Read(net), *kept["train"], classes, torch.float32)
        heads = [sums.solve(decay) for decay in decays]
        tested = accuracies(Read(net), *kept["test"], torch.float32, heads)
        found |= {"dropout": DROPPED, "decay": _rounded(decays), "test": tested}
    else:
        _, spread = core.scale(kept["train"][0])
        out = core.softmax(
            *kept.values(), settings(), classes=classes, epochs=int(what.removeprefix("epochs")),
            generator=torch.Generator().manual_seed(0), decay=RANDOM.decay / spread**2,
            batch=RANDOM.batch, momentum=RANDOM.momentum, progress=True,
        )  # fmt: skip
        found["trained"] = [_rounded(dataclasses.asdict(each)) for each in out]
    return found | {"about": _about("cpu", net, begin)}


@torch.no_grad()
def few_classes(net: Classifier, train: Tensor) -> None:
    """Set the moments as in the recorded runs of Table 1: from the first images only.

    An image tree is read class by class, so that the first 10,000 images show few classes, and the
    2,000 that deeper layers saw one.
    """
    x = net.standardize(train[:CALIBRATION])
    with torch.autocast(train.device.type, torch.bfloat16):
        for layer in net.layers:
            layer.calibrate(x)
            x = torch.cat([layer(some) for some in x[:SAMPLE].split(250)])


def _features(net: Classifier, images: Tensor, path: Path) -> Tensor:
    return core.keep_features(net, images, path, dtype=torch.bfloat16)


def _sets(data: Labelled) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and labels, split as the recorded runs split them."""
    learn, hold = data.split(RANDOM.validation, torch.Generator().manual_seed(SPLIT_SEED))
    return {
        "train": (data.train[learn], data.train_labels[learn]),
        "validation": (data.train[hold], data.train_labels[hold]),
        "test": (data.test, data.test_labels),
    }


def _packed(found: Condition) -> dict[str, Any]:
    """A spectrum as it is recorded: at some places."""
    some = np.unique(np.geomspace(1, len(found.places), PLACES).round().astype(int)) - 1
    packed = {
        name: [getattr(found, name)[i] for i in some] for name in ("eigenvalues", "places")
    }
    return _rounded(dataclasses.asdict(found) | packed)


def _kept(
    path: Path, asked: Mapping[str, Any], data: Labelled | None,
    make: Callable[[], dict[str, Any]],
) -> dict[str, Any] | None:  # fmt: skip
    """The file's content, made first if it is missing and there are data; else None.

    Raises:
        ValueError: it was made on other data, where these are given, or asked for something else.
    """
    asked = json.loads(json.dumps(asked))
    if not path.exists():
        if data is None:
            return None
        found = make() | {"asked": asked}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    told = _told(found)
    if data is not None:
        asked, told = asked | {"data": data.sha256}, told | {"data": found["data"]["sha256"]}
    for name, want in asked.items():
        if name in told and told[name] != want:
            raise ValueError(f"{path.stem}: expected {name} {want}, but found {told[name]}")
    for fit in found.get("fits", ()):
        if fit["decay"] not in asked["decays"]:
            raise ValueError(f"{path.stem}: expected decays {asked['decays']}: {fit['decay']}")
    return found


def _told(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of what it was asked for: all, or in older files what the results show."""
    names = ("architecture", "seed", "dtype", "what", "dropout")
    told = {name: found[name] for name in names if name in found}
    if "fits" in found:
        told["filters"] = [each["filters"] for each in found["fits"]]
    if "trained" in found:
        told["settings"] = [each["setting"] for each in found["trained"]]
    return told | found.get("asked", {})


def _collected(
    label: str, p: chapter.Parameters, runs: Mapping[str, Any], asked: int
) -> notebook.Recording:
    if not runs:
        raise ValueError(f"runs = {p.runs!r}: expected a folder with finished runs in {label}")
    kinds = {run["data"]["sha256"]: run["data"] for run in runs.values()}
    if len(kinds) > 1:
        labels = [each["label"] for each in kinds.values()]
        raise ValueError(f"runs = {p.runs!r}: expected runs on one set of images: {labels}")
    (data,) = kinds.values()
    where = sorted({
        f"{run['about']['device']}, torch {run['about']['versions']['torch']}"
        for run in runs.values()
    })  # fmt: skip
    packed = {
        name: {key: value for key, value in run.items() if key not in ("data", "asked")}
        for name, run in runs.items()
    }
    results = {"data": data, "asked": asked, "note": p.note, "runs": packed}
    read = {"data": f"{data['label']}, SHA-256 {data['sha256'][:16]}", "runs": "; ".join(where)}
    return notebook.Recording(label, read, results)


def _data(data: Labelled) -> dict[str, str]:
    return {"label": data.label, "sha256": data.sha256}


def _about(device: str, net: Classifier, begin: float) -> dict[str, Any]:
    return about(device, net) | {"seconds": round(time.monotonic() - begin, 1)}


def _slug(text: str) -> str:
    return text.replace("(", "").replace(")", "x")


def _rounded(value: Any) -> Any:
    """Numbers at four digits, also in what is in lists and dicts."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
