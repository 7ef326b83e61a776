import numpy as np
import ray


def test_what_is_held_is_one_copy_that_trials_read(ray_cluster):
    from bitcorn_ray.on_ray.evolution import hold, with_held

    shared = {"big": np.arange(1 << 18)}
    held = hold(shared)
    assert shared == {}

    def work(fetch, configuration, report):
        array = fetch("big")
        report({"sum": int(array.sum()), "writeable": array.flags.writeable, "other": fetch("other"), **configuration})

    @ray.remote
    def trial(work):
        told = []
        work({"other": 5}.get, {"x": 1}, told.append)
        return told

    expected = [{"sum": sum(range(1 << 18)), "writeable": False, "other": 5, "x": 1}]
    assert ray.get([trial.remote(with_held(work, held)) for _ in range(2)]) == [expected] * 2
