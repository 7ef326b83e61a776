from bitcorn_ray.tuning.distribute import scheduler_of
from bitcorn_ray.tuning.search import Outcome


def decisions(scheduler, losses):
    """What a scheduler says to trials that report a fold, one after another: a trial's first loss each."""
    said = []
    for number, loss in enumerate(losses):
        trial = type("Trial", (), {"trial_id": f"t{number}"})()
        scheduler.on_trial_add(None, trial)
        said.append(scheduler.on_trial_result(None, trial, {"fold": 1, "loss": loss}))
    return said


def test_hyperband_has_brackets_and_asha_one():
    assert [len(scheduler_of(name, 12, [])._brackets) for name in ("asha", "hyperband")] == [1, 3]


def test_bad_trials_stop_after_their_first_fold():
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert decisions(scheduler_of("asha", 4, []), losses)[-1] == "STOP"
    assert decisions(scheduler_of("median", 4, []), losses)[-1] == "STOP"
    assert set(decisions(scheduler_of("none", 4, []), losses)) == {"CONTINUE"}


def test_trials_of_the_past_count():
    past = [Outcome("finished", (x,) * 4) for x in (1.0, 2.0, 3.0, 4.0)] + [Outcome("failed")]
    for name in ("asha", "median"):
        assert decisions(scheduler_of(name, 4, past), [5.0, 0.5]) == ["STOP", "CONTINUE"]
