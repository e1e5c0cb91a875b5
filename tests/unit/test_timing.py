"""The stopwatch."""

import numpy as np
import torch

from busflow.engine import timing


def test_warm_up_calls_are_made_but_not_timed():
    calls = []
    times = timing.seconds(lambda: calls.append(1), torch.device("cpu"), warmup=3, iterations=5)
    assert len(calls) == 8 and times.shape == (5,) and (times > 0).all()


def test_latency_percentiles_are_those_of_the_timed_calls(monkeypatch):
    samples = {1: np.arange(1, 101) / 1e3, 8: np.full(5, 0.5)}

    def fake(call, device, warmup, iterations):
        return samples[call()]

    monkeypatch.setattr(timing, "seconds", fake)
    measured = timing.measure(lambda n: n, torch.device("cpu"), batch=8, warmup=4, iterations=100)
    assert measured["latency"]["p50_ms"] == 50.5
    assert measured["latency"]["p99_ms"] == np.percentile(np.arange(1, 101), 99)
    assert measured["throughput"] == {"batch": 8, "n": 5, "images_per_s": 16.0}


def test_the_processor_has_a_name():
    assert timing.device_name(torch.device("cpu"))
