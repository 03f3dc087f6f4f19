"""Steps with a clock of their own: what is measured and in which order, without any real time."""

from __future__ import annotations

import gc
import random
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from nets import Net, make

import ckptaudit
from ckptaudit import TrainStep, UsageError
from ckptaudit.training.bench.rounds import WARM_UP, Budget, Clocks, measure
from ckptaudit.training.bench.session import Session


class Watch:
    """A clock that only steps move."""

    def __init__(self):
        self.now, self.waits = 0.0, 0

    def clocks(self):
        return Clocks(lambda: self.now, lambda: 2 * self.now, self.wait, lambda: self.now)

    def wait(self):
        self.waits += 1


class Fake:
    """A step whose phases take seconds of a watch, with noise."""

    def __init__(self, watch, name, log, seconds=(1.0, 2.0, 0.5), spread=0.0, seed=0):
        self.watch, self.name, self.log, self.seconds = watch, name, log, seconds
        self.random, self.spread = random.Random(f"{seed} {name}"), spread

    def _take(self, index):
        self.watch.now += self.seconds[index] * self.random.lognormvariate(0, self.spread)

    def forward(self):
        self.log.append((self.name, gc.isenabled()))
        self._take(0)

    def backward(self, loss):
        self._take(1)

    def update(self):
        self._take(2)


PAIR = ("full", "full again")


def steps(watch, log=None, **frozen):
    log = [] if log is None else log
    made = {name: Fake(watch, name, log) for name in PAIR}
    return made | {"frozen": Fake(watch, "frozen", log, **({"seconds": (1.0, 0.0, 0.0)} | frozen))}


def test_every_round_has_every_variant_once_in_an_order_of_its_own():
    watch, log = Watch(), []
    rounds = list(measure(steps(watch, log), watch.clocks(), Budget(rounds=20), PAIR))
    assert len(rounds) == 20
    assert all(list(one.times) == [*PAIR, "frozen"] for one in rounds)
    names = [name for name, _ in log]
    warm, timed = names[: 3 * WARM_UP], names[3 * WARM_UP :]
    assert warm == [*PAIR, "frozen"] * WARM_UP
    orders = {tuple(timed[i : i + 3]) for i in range(0, 60, 3)}
    assert all(sorted(order) == sorted([*PAIR, "frozen"]) for order in orders)
    assert len(orders) > 3


def test_the_order_is_the_same_for_the_same_seed():
    logs = []
    for _ in range(2):
        log = []
        list(measure(steps(watch := Watch(), log), watch.clocks(), Budget(rounds=9), PAIR))
        logs.append(log)
    assert logs[0] == logs[1]


def test_phases_walls_and_processor_time_are_read_at_the_boundaries():
    watch = Watch()
    (one,) = measure(steps(watch), watch.clocks(), Budget(rounds=1), PAIR)
    assert one.times["full"].phases == (1.0, 2.0, 0.5)
    assert (one.times["full"].wall, one.times["full"].cpu) == (3.5, 7.0)
    assert watch.waits == 2 * 3 * (WARM_UP + 1)  # at both ends of each step, and nowhere else


def test_the_garbage_collector_is_off_in_steps_and_on_afterwards():
    watch, log = Watch(), []
    rounds = measure(steps(watch, log), watch.clocks(), Budget(rounds=3), PAIR)
    list(islice(rounds, 1))
    rounds.close()  # as after an exception
    assert not any(enabled for _, enabled in log[3 * WARM_UP :])
    assert gc.isenabled()


def test_a_budget_in_seconds_has_eight_rounds_at_least():
    watch = Watch()
    assert len(list(measure(steps(watch), watch.clocks(), Budget(seconds=1), PAIR))) == 8
    assert len(list(measure(steps(watch), watch.clocks(), Budget(seconds=80), PAIR))) == 10


def test_rounds_end_by_themselves_once_the_noise_is_small():
    watch = Watch()
    assert len(list(measure(steps(watch), watch.clocks(), Budget(), PAIR))) == 12
    noisy = {name: Fake(watch, name, [], (0.1, 0.1, 0.1), spread=0.5) for name in PAIR}
    count = len(list(measure(noisy, watch.clocks(), Budget(), PAIR)))
    assert 60 < count < 300  # a minute, as the noise does not end


def measured(seed, factor=1.0, spread=0.02, rounds=16):
    """Return the benchmark of a model whose real steps are replaced by simulated ones."""
    watch = Watch()
    made = iter(range(100))

    class Simulated(TrainStep):
        def __init__(self, factor):
            self.samples, self.seconds = 4, (1.0 * factor, 2.0 * factor, 0.5 * factor)
            self.fake = Fake(watch, next(made), [], self.seconds, spread, seed)
            self.forward, self.backward, self.update = self.fake.forward, self.fake.backward, self.fake.update

        def run(self):
            pass

    makers = {"full": lambda: Simulated(1.0), "other": lambda: Simulated(factor)}
    return ckptaudit.bench_train_step(makers, rounds=rounds, clocks=watch.clocks())


@pytest.mark.filterwarnings("ignore:.*Profiler")
def test_an_unchanged_variant_is_within_the_noise_in_19_of_20_repeats_and_a_tenth_slower_is_not():
    same = [measured(seed) for seed in range(20)]
    assert sum(one.noise.tells(one.speed_up("other")) for one in same) <= 1
    slower = [measured(seed, factor=1.1) for seed in range(20)]
    assert all(one.noise.tells(one.speed_up("other")) for one in slower)
    assert all(one.speed_up("other").point == pytest.approx(1 / 1.1, rel=0.03) for one in slower)


@pytest.mark.filterwarnings("ignore:.*Profiler")
def test_real_steps_give_a_whole_benchmark():
    model, shape = make("net")
    variants = ckptaudit.freeze_variants(model, [shape], device="cpu")
    seen = []
    threads = torch.get_num_threads()
    result = ckptaudit.bench_train_step(variants, rounds=8, threads=1, progress=lambda *news: seen.append(news))
    assert torch.get_num_threads() == threads
    assert [variant.name for variant in result.measured] == [variant.name for variant in variants.variants]
    assert result.environment["threads"] == 1
    for variant in result.measured:
        assert result.plan.predicted(variant.name) > 0
        assert result.peaks[variant.name] > 0
        assert len(result.seconds(variant.name)) == 8
        assert all(second > 0 for second in result.seconds(variant.name))
    # memory is no matter of time: what is frozen needs less
    assert result.peaks["frozen eval"] < result.peaks["norms+biases"] <= result.peaks["full"]
    assert [what for _, _, what in seen][:1] == ["planning"]
    assert seen[-1] == (8, 8, "measuring")


def test_a_maker_that_returns_no_step_is_an_error():
    with pytest.raises(UsageError, match="returned a int and no TrainStep"):
        ckptaudit.bench_train_step({"full": lambda: 3}, rounds=8)
    with pytest.raises(UsageError, match="returned a NoneType and no TrainStep"):
        ckptaudit.freeze_variants(Net(), make_step=lambda model, parameters: None, device="cpu")


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_the_device_of_steps_of_ones_own_is_that_of_their_parameters(monkeypatch, where):
    """Else nobody would wait for an accelerator."""
    seen = []
    monkeypatch.setattr(Clocks, "of", classmethod(lambda cls, device, clock: seen.append(device.type) or cls()))
    optimizer = SimpleNamespace(
        param_groups=[{"params": []}, {"params": [SimpleNamespace(device=torch.device(where))]}]
    )
    session = Session(makers={"full": lambda: TrainStep(lambda: torch.ones(()), optimizer)})
    session.build(session.plan())
    assert seen[-1] == where


def test_what_a_step_raises_is_a_sentence():
    with pytest.raises(UsageError, match="the step raised RuntimeError"):
        ckptaudit.freeze_variants(Net(), ["2,4,16,16"], device="cpu")


@pytest.mark.parametrize("text", ["", "8,x", "8,0", "8,3:floot", "-1,2"])
def test_inputs_that_are_no_shapes_are_refused(text):
    with pytest.raises(UsageError):
        ckptaudit.freeze_variants(Net(), [text], device="cpu")


def test_a_step_of_ones_own_is_planned_and_built():
    calls = []

    def make_step(model, parameters):
        images = torch.randn(3, 3, 16, 16)
        calls.append(type(images).__name__)
        return TrainStep(lambda: model(images).logsumexp(1).mean(), torch.optim.SGD(parameters, lr=0.1), 3)

    subject = ckptaudit.freeze_variants(Net(), make_step=make_step, only=["frozen eval"], device="cpu")
    assert subject.plan()["frozen eval"].cost.optimizer_state == 0
    assert set(calls) == {"FakeTensor"}
    assert subject.build("full").forward().item() > 0
    assert calls[-1] == "Tensor"


def test_plans_need_no_values():
    with torch.device("meta"):
        model = Net()
    plan = ckptaudit.plan_freeze(model, [(4, 3, 16, 16)])
    assert [v.name for v in plan.variants] == ["full", "full again", "last 2", "frozen", "frozen eval", "norms+biases"]
    assert plan.by_flops("frozen eval") > plan.by_flops("last 2") > 1
    assert plan.predicted("frozen eval") is None
    assert all(tensor.is_meta for tensor in model.state_dict().values())
