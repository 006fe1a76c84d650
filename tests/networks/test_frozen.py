"""Classifiers on features that do not move: the file, the descent, the spectrum. About 3 s."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F

from invertnb.networks import frozen
from invertnb.networks.classifier import Classifier
from invertnb.networks.frozen import Condition, Read, Setting, condition, keep_features, softmax
from invertnb.networks.labelled import open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.ridge import Moments, ridge


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return open_labelled("digits", limit=(320, 80))


def network(data, seed: int = 0) -> Classifier:
    net = Classifier(
        parse("(8)3c-2pmax-2pave"), data.train, 10, learned=False, dropout=0.5,
        generator=generator(seed),
    )  # fmt: skip
    net.calibrate(data.train)
    return net


@pytest.fixture(scope="module")
def net(data) -> Classifier:
    return network(data)


@pytest.fixture(scope="module")
def sets(data, net):
    with torch.no_grad():
        train, test = (net.eval().features(x) for x in (data.train, data.test))
    labels = data.train_labels
    return (train[:240], labels[:240]), (train[240:], labels[240:]), (test, data.test_labels)


# The file


def test_the_file_has_the_features(data, net, tmp_path):
    kept = keep_features(net, data.train, tmp_path / "x.npy", progress=False)
    assert kept.dtype == torch.float16 and kept.shape == (320, 32)
    expected = net.features(data.train).detach()
    torch.testing.assert_close(kept.float(), expected, rtol=2**-11, atol=1e-6)
    assert (kept[-1] != 0).any()  # the last, smaller batch


def test_an_interrupted_call_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "BATCH", 50)
    monkeypatch.setattr(frozen, "KEPT_EVERY", 2)
    net, path, calls = network(data), tmp_path / "x.npy", []
    whole = keep_features(net, data.train, tmp_path / "whole.npy", progress=False)
    features = net.features

    def limited(x):
        calls.append(len(x))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return features(x)

    monkeypatch.setattr(net, "features", limited)
    with pytest.raises(KeyboardInterrupt):
        keep_features(net, data.train, path, progress=False)
    assert json.loads(path.with_suffix(".json").read_text())["done"] == 200
    calls[:] = [0] * 6  # no more interruptions
    assert torch.equal(keep_features(net, data.train, path, progress=False), whole)
    assert calls[6:] == [50, 50, 20]
    keep_features(net, data.train, path, progress=False)
    assert len(calls) == 9  # a finished file is read


def test_a_note_without_its_file_is_no_promise(data, net, tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    whole = keep_features(net, data.train, path, progress=False).clone()
    path.unlink()
    with pytest.raises(ValueError, match="features of this network and these images"):
        keep_features(net, data.train.flip(0), path, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(net, "features", lambda x: 1 / 0)  # before the first rows
        with pytest.raises(ZeroDivisionError):
            keep_features(net, data.train, path, progress=False)
    assert torch.equal(keep_features(net, data.train, path, progress=False), whole)


def test_features_of_others_are_refused(data, net, tmp_path):
    path = tmp_path / "x.npy"
    keep_features(net, data.train, path, progress=False)
    before = path.read_bytes()
    expected = "path = 'x.npy': expected features of this network and these images"
    for other, images in (
        (network(data, 1), data.train), (net, data.train.flip(0)), (net, data.train[:300])
    ):  # fmt: skip
        with pytest.raises(ValueError, match=expected):
            keep_features(other, images, path, progress=False)
    assert path.read_bytes() == before
    head = network(data)
    torch.nn.init.zeros_(head.head.weight)  # which plays no part
    keep_features(head, data.train, path, progress=False)


def test_what_float16_cannot_hold(data, tmp_path):
    net = network(data)
    torch.nn.init.constant_(net.layers[0].scale, 1e6)
    with pytest.raises(ValueError, match="numbers that float16 can hold"):
        keep_features(net, data.train, tmp_path / "x.npy", progress=False)
    with pytest.raises(ValueError, match="a name that ends in .npy"):
        keep_features(net, data.train, tmp_path / "x.bin", progress=False)


def test_ridge_on_what_was_kept_is_ridge_on_the_images(data, net, sets):
    names = ("train", "validation", "test")
    images = {
        "train": (data.train[:240], data.train_labels[:240]),
        "validation": (data.train[240:], data.train_labels[240:]),
        "test": (data.test, data.test_labels),
    }
    direct = ridge(net, [2, 8], [0.01, 1.0], dtype=torch.float32, **images)
    read = ridge(
        Read(net), [2, 8], [0.01, 1.0], dtype=torch.float32, **dict(zip(names, sets, strict=True))
    )
    assert read == direct


# The spectrum


def test_a_spectrum_by_hand():
    """(1, 0), (3, 0), (2, 1) and (2, -1) have the mean (2, 0) and the covariance I / 2."""
    mean = torch.tensor([2.0, 0])
    found = condition(Moments(torch.eye(2) / 2, torch.zeros(2, 2), mean, torch.ones(2)))
    assert (found.mean, found.variance, found.places) == (4, 1, (1, 2))
    assert found.second == pytest.approx(4.5)
    assert found.eigenvalues == pytest.approx((0.5, 0.5))
    assert found.share == pytest.approx(0.8)
    assert found.stable("plain", 10) == pytest.approx(20 / 4.5)
    assert found.stable("centered", 10) == pytest.approx(40)
    assert found.above(0.4) == 2 and found.above(0.6) == 0


def test_places_between_those_that_were_kept():
    eigenvalues = tuple(1 / i**2 for i in (1, 10, 100))
    found = Condition(1.0, 1.0, 1.0, eigenvalues, (1, 10, 100))
    assert found.above(1 / 30**2) == pytest.approx(30)
    assert found.above(1e-9) == pytest.approx(100)
    with pytest.raises(ValueError, match="threshold = 0"):
        found.above(0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_largest_stable_rate_is_that_of_torchs_descent(momentum):
    L = 0.7  # of the loss L w^2 / 2
    limit = Condition(0.0, 1.0, 10 * L, (1.0,), (1,)).stable("plain", 10, momentum)
    for share, grows in ((0.98, False), (1.02, True)):
        w = torch.ones(1, dtype=torch.float64, requires_grad=True)
        steps = torch.optim.SGD([w], share * limit, momentum, nesterov=momentum > 0)
        for _ in range(600):
            w.grad = L * w.detach()
            steps.step()
        assert (abs(float(w.detach())) > 1) == grows


def test_a_rate_beyond_it_leaves_the_start(sets):
    """The loss of softmax classifiers after the first steps, against that of equal scores."""
    train = sets[0]
    x = train[0]
    gram = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    found = condition(Moments(gram, torch.zeros(32, 10), x.mean(0), torch.ones(10)))
    assert found.second > 3 * found.eigenvalues[0]
    for base in ("plain", "centered"):
        limit = found.stable(base, 10)
        low, high = softmax(
            *sets, [Setting(limit / 2, base), Setting(4 * limit, base)], classes=10, epochs=8,
            batch=240, momentum=0.0, generator=generator(),
        )  # fmt: skip
        assert low.loss[0] == pytest.approx(math.log(10)) and max(low.loss[1:]) < low.loss[0]
        assert max(high.loss) > high.loss[0]


# The descent


@pytest.mark.parametrize(
    "setting",
    [
        Setting(0.5, "plain"), Setting(3.0, "centered"), Setting(0.5, "plain", 0.3),
        Setting(1.0, dropout=0.5),
    ],
    ids=str,
)
def test_a_classifier_beside_others_is_torchs(sets, setting):
    """Loss and accuracy of torch's own SGD on scaled features, the same draws, no others beside."""
    (x, y), held, _ = sets
    others = [Setting(2.0, "centered", 0.5), Setting(0.1, "whitened")]
    found = softmax(
        *sets, [others[0], setting, others[1]], classes=10, epochs=3, batch=100, decay=0.01,
        generator=generator(4),
    )[1]  # fmt: skip
    draw = generator(4)
    orders, drops = (generator(int(torch.randint(2**62, (), generator=draw))) for _ in range(2))
    mean = x.mean(0)
    spread = (x - mean).square().sum(1).mean().sqrt()
    shift = 0 if setting.base == "plain" else mean
    linear = torch.nn.Linear(32, 10)
    for each in linear.parameters():
        torch.nn.init.zeros_(each)
    groups = [{"params": [linear.weight], "weight_decay": 0.01}, {"params": [linear.bias]}]
    steps = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    for epoch in range(3):
        order, losses = torch.randperm(240, generator=orders), []
        for step in range(2):
            some = order[100 * step : 100 * step + 100].sort().values
            kept = (torch.rand(100, 32, generator=drops) >= setting.dropout).float()
            seen = x[some] * kept / (1 - setting.dropout) if setting.dropout else x[some]
            loss = F.cross_entropy(linear((seen - shift) / spread), y[some])
            for group in steps.param_groups:
                group["lr"] = setting.rate * (1 - (2 * epoch + step) / 6)
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(float(loss.detach()))
        assert found.loss[epoch] == pytest.approx(sum(losses) / 2, rel=1e-4)
        with torch.no_grad():
            right = (linear((held[0] - shift) / spread).argmax(1) == held[1]).double().mean()
        assert found.history[epoch] == pytest.approx(float(right), abs=0.02)


def test_whitening_is_descent_on_whitened_features(sets):
    """With features whitened beforehand, plain descent does the same."""
    (x, y), held, test = sets
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double() / len(x))
    root = (vectors * (values + 0.01 * values.mean()) ** -0.5) @ vectors.T
    white = [(((x - mean).double() @ root).float(), y) for x, y in sets]
    # Whitened features have another mean squared distance, by which `softmax` divides rates.
    ratio = float(white[0][0].square().sum(1).mean())
    options = {"classes": 10, "epochs": 3, "batch": 80}
    (ours,) = softmax(*sets, [Setting(0.2, "whitened")], generator=generator(), **options)
    (theirs,) = softmax(*white, [Setting(0.2 * ratio, "plain")], generator=generator(), **options)
    # The biases have rates of their own, which differ by that ratio: compare what both learn fast.
    assert ours.loss[-1] == pytest.approx(theirs.loss[-1], rel=0.05)
    (slow,) = softmax(*sets, [Setting(0.2, "plain")], generator=generator(), **options)
    assert ours.loss[-1] < 0.7 * slow.loss[-1]


def test_centering_changes_the_way_and_not_the_end(sets):
    found = softmax(
        *sets, [Setting(2.0, "plain"), Setting(2.0, "centered"), Setting(20.0, "centered")],
        classes=10, epochs=300, batch=240, decay=0.05, generator=generator(),
    )  # fmt: skip
    first = [each.loss[4] for each in found]
    assert abs(first[0] - first[1]) > 0.01
    assert found[0].loss[-1] == pytest.approx(found[1].loss[-1], abs=1e-3)
    assert found[2].loss[-1] == pytest.approx(found[1].loss[-1], abs=1e-3)


def test_the_epoch_is_chosen_by_validation(sets):
    train, held, test = sets
    wrong = (test[0], (test[1] + 1) % 10)  # a test set that asks for the opposite
    for tested in (test, wrong):
        (found,) = softmax(
            train, held, tested, [Setting(3.0)], classes=10, epochs=6, batch=80,
            generator=generator(),
        )
        assert found.validation == max(found.history) == found.history[found.best - 1]
        assert all(each < found.validation for each in found.history[found.best :])
    assert found.test < 0.3


def test_what_is_refused(sets):
    options = {"classes": 10, "epochs": 1, "batch": 80, "generator": generator()}
    with pytest.raises(ValueError, match="training images = 240: expected 241 at least"):
        softmax(*sets, [Setting(1.0)], **(options | {"batch": 241}))
    with pytest.raises(ValueError, match=r"settings = \[\]: expected one at least"):
        softmax(*sets, [], **options)
    with pytest.raises(ValueError, match="base = 'whole': expected one of 'plain'"):
        Setting(1.0, "whole")
    with pytest.raises(ValueError, match="dropout = 1.0: expected a probability below 1"):
        dataclasses.replace(Setting(1.0), dropout=1.0)
    with pytest.raises(ValueError, match="a smaller rate than .*1e\\+38"):
        softmax(*sets, [Setting(1.0), Setting(1e38, "plain")], **options)
