"""The ridge classifier in closed form against scikit-learn's, and how its decay is chosen."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from invertnb.networks import ridge as module
from invertnb.networks.classifier import Classifier
from invertnb.networks.labelled import open_labelled
from invertnb.networks.notation import parse
from invertnb.networks.ridge import Moments, accuracies, moments, ridge

CLASSES = 10
DECAYS = (1e-3, 0.03, 1.0, 30.0, 1000.0)


@pytest.fixture(scope="module")
def sets() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    data = open_labelled("digits", limit=(310, 60))
    return {
        "train": (data.train[:220], data.train_labels[:220]),
        "validation": (data.train[220:], data.train_labels[220:]),
        "test": (data.test, data.test_labels),
    }


def random(text: str, images: torch.Tensor) -> Classifier:
    generator = torch.Generator().manual_seed(0)
    net = Classifier(parse(text), images, CLASSES, learned=False, dropout=0.5, generator=generator)
    net.calibrate(images)
    return net


@pytest.fixture(scope="module")
def net(sets) -> Classifier:
    return random("(6)3c-2pmax-2pave", sets["train"][0])


def features(net, images):
    return net.features(images).detach().double()


def targets(labels):
    return F.one_hot(labels, CLASSES).double()


def sklearns(X, Y, decay):
    """lambda is relative to the features' mean variance, and scikit-learn's alpha counts images."""
    alpha = decay * X.var(0, correction=0).mean().item() * len(X)
    return Ridge(alpha=alpha).fit(X.numpy(), Y.numpy())


def test_moments_in_batches_are_those_of_all_features(net, sets, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 64)
    found = moments(net, *sets["train"], CLASSES, torch.float32)
    X, Y = features(net, sets["train"][0]), targets(sets["train"][1])
    centered = X - X.mean(0)
    gram, cross = centered.T @ centered / 220, centered.T @ (Y - Y.mean(0)) / 220
    want = Moments(gram, cross, X.mean(0), Y.mean(0))
    for name in ("gram", "cross", "feature_mean", "target_mean"):
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(want, name), rtol=1e-4, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("decay", [0.01, 1.0])
@pytest.mark.parametrize("k", [2, 6])
def test_weights_are_scikit_learns(net, sets, decay, k):
    images, labels = sets["train"]
    found = moments(net, images, labels, CLASSES, torch.float32)
    weight, bias = found.solve(decay, 4 * k)  # 2 x 2 places of each filter
    assert weight.dtype == bias.dtype == torch.float64
    want = sklearns(features(net, images)[:, : 4 * k], targets(labels), decay)
    # The moments are sums in float32, and the smaller lambda amplifies their rounding.
    near = 1e-3 * abs(want.coef_).max()
    torch.testing.assert_close(weight.T.numpy(), want.coef_, rtol=0, atol=near)
    torch.testing.assert_close(bias.numpy(), want.intercept_, rtol=0, atol=1e-3)


def test_a_solution_by_hand_that_changes_no_moments():
    # One feature with variance 4, lambda 1/2: 3 / (4 + 2) = 1/2, and 1 - 1/2 * 10 = -4.
    one = torch.ones(1, 1, dtype=torch.float64)
    given = Moments(4 * one, 3 * one, 10 * one[0], one[0])
    for _ in range(2):
        weight, bias = given.solve(0.5)
        assert weight.item() == pytest.approx(0.5)
        assert bias.item() == pytest.approx(-4)


def test_the_first_filters_are_a_network_of_their_own(net, sets):
    k = 3
    few = random("(3)3c-2pmax-2pave", sets["train"][0])
    few.layers[0].weight.copy_(net.layers[0].weight[:k])
    few.calibrate(sets["train"][0])
    options = {"decays": DECAYS, "dtype": torch.float32, **sets}
    first = ridge(net, [6, k], **options)[1]
    assert first == ridge(few, [k], **options)[0]
    assert first.filters == k


def test_accuracies_of_several_heads_in_one_pass(net, sets, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 64)
    images, labels = sets["train"]
    generator = torch.Generator().manual_seed(1)
    heads = [
        (torch.randn(P, CLASSES, generator=generator), torch.randn(CLASSES, generator=generator))
        for P in (24, 4, 12)
    ]
    found = accuracies(net, images, labels, torch.float32, heads)
    seen = features(net, images).float()
    for got, (weight, bias) in zip(found, heads, strict=True):
        scores = seen[:, : len(weight)] @ weight + bias
        assert got == (scores.argmax(1) == labels).double().mean().item()
    assert len(set(found)) > 1


def test_each_width_takes_the_decay_that_validates_best(net, sets):
    # So few images that the smallest decay overfits the most features.
    sets = sets | {"train": tuple(each[:60] for each in sets["train"])}
    fits = ridge(net, [1, 3, 6], DECAYS, dtype=torch.float32, **sets)
    seen = {name: features(net, images) for name, (images, _) in sets.items()}
    for fit in fits:
        P = 4 * fit.filters
        reached = {}
        for decay in DECAYS:
            model = sklearns(seen["train"][:, :P], targets(sets["train"][1]), decay)
            reached[decay] = {
                name: (model.predict(seen[name][:, :P].numpy()).argmax(1) == labels.numpy()).mean()
                for name, (_, labels) in sets.items()
            }
        best = max(DECAYS, key=lambda decay: reached[decay]["validation"])
        assert fit.decay == best
        assert dataclasses.asdict(fit) == pytest.approx(
            {"filters": fit.filters, "decay": best, **reached[best]}
        )
    assert [fit.filters for fit in fits] == [1, 3, 6]
    assert fits[2].test > fits[0].test > 0.1
    assert fits[2].decay > fits[0].decay


def test_test_images_choose_nothing(net, sets):
    one = ridge(net, [2, 6], DECAYS, dtype=torch.float32, **sets)
    images, labels = sets["test"]
    moved = sets | {"test": (images, (labels + 1) % CLASSES)}
    two = ridge(net, [2, 6], DECAYS, dtype=torch.float32, **moved)
    for before, after in zip(one, two, strict=True):
        assert before.test != after.test
        assert dataclasses.replace(before, test=after.test) == after


def test_bfloat16_features_stay_near(net, sets):
    images, labels = sets["train"]
    want = moments(net, images, labels, CLASSES, torch.float32).gram
    found = moments(net, images, labels, CLASSES, torch.bfloat16).gram
    assert found.dtype == torch.float32
    assert 0 < (found - want).norm() / want.norm() < 0.02


def test_arguments_are_checked(net, sets, refuses):
    found = moments(net, *sets["train"], CLASSES, torch.float32)
    refuses(lambda: found.solve(0.0), "decay = 0.0")
    refuses(lambda: found.solve(float("inf")), "decay = inf")
    refuses(lambda: found.solve(1.0, 25), "features = 25", "1 to 24")
    refuses(lambda: found.solve(1.0, 0), "features = 0")

    def fit(filters, decays):
        return ridge(net, filters, decays, dtype=torch.float32, **sets)

    refuses(lambda: fit([7], [1.0]), "filters = 7", "1 to 6")
    refuses(lambda: fit([0], [1.0]), "filters = 0")
    for filters, decays in (([], [1.0]), ([1], [])):
        with pytest.raises(ValueError, match="filters, decays = .*: expected one of each"):
            fit(filters, decays)
