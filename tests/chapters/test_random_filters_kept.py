"""Chapter "Random filters can classify": what one step keeps. About 5 s on one thread."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch

from invertnb import FilterBank
from invertnb.chapters.random_filters import kept, kept_figures, kept_images, kept_readers
from invertnb.chapters.random_filters import kept_study
from invertnb.chapters.random_filters.kept_images import Step, at_error, averaged, blurred, noisy
from invertnb.networks import Labelled, open_labelled
from invertnb.networks.training import Recipe
from invertnb.reconstruct import relative_error


def generator(stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=generator(1)).cumsum(2).cumsum(3)


@pytest.fixture(scope="module")
def few() -> Labelled:
    return open_labelled("digits", limit=(240, 60))


def test_a_step_by_hand():
    """Two filters 1 x 1 of weights 1 and -1/2: the second never has what the first has not."""
    bank = FilterBank(torch.tensor([1.0, -0.5]).view(2, 1, 1, 1))
    x = torch.tensor([[3.0, -4.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    # Both keep -4, as -4 and 2: W^T of it is -4 - 1 there and nothing elsewhere.
    expected = torch.tensor([[0.0, -1.0], [0.0, 0.0]]).view(1, 1, 2, 2) * math.sqrt(26)
    assert torch.allclose(Step(2).of(x, bank), expected)
    # After ReLU the first keeps 3 and the second 2, where x is -4: 3 and -1.
    expected = torch.tensor([[3.0, -1.0], [0.0, 0.0]]).view(1, 1, 2, 2) * math.sqrt(2.6)
    assert torch.allclose(Step(2, pooling="rectified").of(x, bank), expected)


def test_numbers_kept(x):
    assert Step(4).kept((3, 8, 8)) == 3 * 8 * 8
    assert Step(4, window=4).kept((3, 8, 8)) == 3 * 8 * 8 // 4
    fewer = [Step(kept.MANY, share=share) for share in kept.SHARES]
    assert [step.kept((1, 8, 8)) for step in fewer] == [256, 64, 16, 4]
    assert Step(1, share=1e-6).kept((1, 8, 8)) == 1
    # A share that keeps one response gives one filter back, at one place.
    hat = Step(4, share=1 / 192).of(x, kept_images.drawn(3, generator, 0))
    assert ((hat != 0).sum((1, 2, 3)) <= 27).all()


def test_first_filters_of_the_bank(x):
    bank = kept_images.drawn(3, generator, 0)
    assert bank.K == 3 * kept_images.RATIOS[-1]
    assert torch.allclose(bank.weight.flatten(1).norm(dim=1), torch.ones(bank.K))
    first = FilterBank(bank.weight[:6], padding=bank.padding)
    assert torch.equal(Step(2).of(x, bank), Step(2).of(x, first))
    with pytest.raises(ValueError, match="bank = 6: expected 12 filters at least"):
        Step(4).of(x, first)


def test_at_error_by_hand():
    x = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    # At a right angle the error is sqrt(2): (-4, 3) or its negative, whatever the part along x.
    direction = torch.tensor([-8.0, 6.0]).view(1, 1, 1, 2) + 5 * x
    found = at_error(x, direction, torch.tensor([math.sqrt(2)]))
    assert torch.allclose(found.flatten(), torch.tensor([-4.0, 3.0]), atol=1e-5)
    assert torch.allclose(at_error(x, direction, torch.tensor([2.0])), -x, atol=1e-5)
    with pytest.raises(ValueError, match=r"error = .* from 0 to 2"):
        at_error(x, direction, torch.tensor([2.1]))


def test_controls_have_the_errors_and_the_norm(x):
    error = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    x = x - 0.9 * x.mean((2, 3), keepdim=True)
    for found in (noisy(x, error, generator(0)), blurred(x, error)):
        assert torch.allclose(relative_error(x, found), error, atol=1e-3)
        assert torch.allclose(found.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    assert torch.equal(noisy(x, error, generator(0)), noisy(x, error, generator(0)))


def test_a_blur_keeps_cosines_and_leaves_means(x):
    wave = torch.cos(math.pi * (torch.arange(8.0) + 0.5) / 8).expand(1, 1, 8, 8)
    # An eigenvector of every blur: scaled to its norm it is itself, whatever error was wanted.
    assert torch.allclose(blurred(wave, torch.tensor([1.0])), wave, atol=1e-5)
    flat = blurred(x, torch.full((5,), 2.0))
    assert (flat.std((2, 3)) < 0.02 * flat.flatten(1).norm(dim=1)[:, None] / 8).all()


def test_averages_by_hand():
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).view(1, 1, 2, 2)
    assert torch.allclose(averaged(x, 2), torch.full((1, 1, 2, 2), math.sqrt(18) / 2))
    with pytest.raises(ValueError, match=r"window = 3: expected a divisor of \(2, 2\)"):
        averaged(x, 3)


def test_order_and_concordance_by_hand():
    error, right = torch.tensor([0.1, 0.2, 0.3, 0.3]), torch.tensor([True, False, True, False])
    # Pairs of misread and read: 0.2 with 0.1 and 0.3, 0.3 with 0.1 and 0.3 (a tie).
    assert kept.order(error, right) == pytest.approx(2.5 / 4)
    assert kept.order(error, torch.ones(4, dtype=torch.bool)) is None
    assert kept.concordance([(0.1, 0.9), (0.2, 0.5), (0.3, 0.7)]) == pytest.approx(2 / 3)
    assert kept.concordance([(0.1, 0.9), (0.2, 0.9)]) == 0.5
    with pytest.raises(ValueError, match="two different errors"):
        kept.concordance([(0.1, 0.9), (0.1, 0.8)])


def test_reconstructions_are_labelled_images(few):
    (ratio, made), = kept_readers.reconstructed(few, [4], generator)
    assert ratio == 4 and not made.real and torch.equal(made.test_labels, few.test_labels)
    # The bytes are the reconstruction, up to one scale, one offset and the rounding.
    x = (few.test.float() - few.train.float().mean()) / few.train.float().std(correction=0)
    hat = Step(4).of(x, kept_images.drawn(1, generator, 0)).flatten()
    inside = (made.test.flatten() > 0) & (made.test.flatten() < 255)
    line = torch.stack([hat[inside], torch.ones(int(inside.sum()))], 1)
    bytes_of = made.test.flatten()[inside].float()
    fitted = line @ torch.linalg.lstsq(line, bytes_of[:, None]).solution
    assert (fitted[:, 0] - bytes_of).abs().max() < 0.6
    assert inside.float().mean() > 0.95
    assert (int(made.train.min()), int(made.train.max())) == (0, 255)


def test_reconstructions_are_on_one_scale(few):
    """An image is given the same bytes as a training and as a test image."""
    some = few.train[:60]
    same = dataclasses.replace(few, test=some, test_labels=few.train_labels[:60])
    (_, made), = kept_readers.reconstructed(same, [2], generator)
    assert torch.equal(made.test, made.train[:60])


@pytest.fixture(scope="module")
def studied(few, tmp_path_factory):
    recipe = Recipe(
        epochs=6, validation=30, batch=30, pad=1, mirror=False, dropout=0.0, dtype="float32"
    )
    steps = [Step(1), Step(4), Step(4, share=1 / 32), Step(4, steps=2)]
    work = tmp_path_factory.mktemp("work")
    options = {"tested": 50, "ratios": (1,), "steps": steps, "learner": "(8)3c-2pmax",
               "recipe": recipe, "progress": False}  # fmt: skip
    results = kept_study.study(few, generator, work, **options)
    return SimpleNamespace(work=work, options=options, results=results)


def test_a_study_is_json_and_goes_on(few, studied):
    results = json.loads(json.dumps(studied.results))
    found = kept.Kept.of(results)
    assert {**results, **found.json()} == results and found.tested == 50
    assert found.image == (1, 8, 8) and not found.pictures and found.desk is None
    assert list(found.retrained) == [1] and list(found.random) == list(kept.RATIOS)
    assert [each.step.ratio for each in found.steps()] == [1, 4]
    assert [each.step.share for each in found.steps(share=None)] == [1, 1, 1 / 32]
    assert [each.window for each in found.averages()] == [2, 4]
    assert found.survives(found.original) == 1 and found.survives(found.chance) == 0
    # Nothing is trained twice.
    before = {path: path.stat().st_mtime_ns for path in studied.work.rglob("*")}
    again = kept_study.study(few, generator, studied.work, **studied.options)
    assert again == studied.results
    assert before == {path: path.stat().st_mtime_ns for path in studied.work.rglob("*")}


def test_what_the_reader_reads(few, studied):
    net = kept_study.load_reader(studied.work / "originals", few)
    x = kept.standardized(net, few.test)
    desk = kept.Desk(net, x, few.test_labels, generator)
    right = net(few.test).argmax(1) == few.test_labels
    assert torch.equal(desk.right, right) and right.double().mean() > 0.5
    # What is given back without an error is read as the original is, by every control.
    same = desk.point(Step(1), [x, x])
    assert same.error == same.spread == 0 and same.order is None
    assert same.accuracy == same.noise == same.blur == float(right.double().mean())
    # The mean over draws, and their spread; -x has the error 2.
    mixed = desk.point(Step(1), [x, -x])
    turned = float(desk.reads(-x).double().mean())
    assert mixed.error == pytest.approx(1)
    assert mixed.accuracy == pytest.approx((same.accuracy + turned) / 2)
    assert mixed.spread == pytest.approx(same.accuracy - turned)


def test_a_reader_for_other_images(few, studied):
    double = (each.repeat(1, 1, 2, 2) for each in (few.train, few.test))
    wide = dataclasses.replace(few, **dict(zip(("train", "test"), double, strict=True)))
    with pytest.raises(ValueError, match="reader = 'originals': expected the state of"):
        kept_study.load_reader(studied.work / "originals", wide)


def test_figures(few, studied):
    found = kept.Kept.of(studied.results)
    canvas = kept_figures.draw({"a": found, "b": found})
    assert len(canvas.axes) == 6
    drawn = {line.get_label(): line for line in canvas.axes[1].lines}
    nearest = min(found.steps(), key=lambda point: point.error)
    assert drawn["one step, 2 x 2"].get_ydata()[0] == nearest.accuracy
    pictures = {"original": few.test[:3].float() / 255}
    grid = kept_figures.pictures(dataclasses.replace(found, pictures=pictures))
    assert len(grid.axes) == 3
