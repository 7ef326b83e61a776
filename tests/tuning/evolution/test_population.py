import math
from itertools import combinations

from bitcorn_ray.tuning.evolution.population import Individual, Population, pareto_front, survival
from bitcorn_ray.tuning.space import Space, point_key

GROUPS = [[f"a{place}" for place in range(8)], ["b0", "b1"]]
SPACE = Space.parse(
    {"rate": {"loguniform": [0.001, 0.1]}, "size": {"int": [8, 64, 8]}, "loss": {"choice": [["x"], ["y"]]}}
)
USEFUL = {"a1", "a4", "b1"}


def loss_of(point):
    """The lowest for exactly the useful features."""
    kept = set(point["features"])
    return 10.0 - 2 * len(kept & USEFUL) + 0.05 * len(kept - USEFUL)


def evolved(generations, seed=0, size=20, space=SPACE, loss=loss_of):
    population, made = Population(GROUPS, space, size, seed), []
    for _ in range(generations):
        points = population.ask()
        made.append((points, population.tell({point_key(point): loss(point) for point in points})))
    return made


def test_the_first_generation_has_all_features_and_each_system_alone():
    ((points, _),) = evolved(1)
    assert len(points) == 20
    assert [point["features"] for point in points[:3]] == [GROUPS[0] + GROUPS[1], GROUPS[0], GROUPS[1]]
    for point in points:
        assert 0.001 <= point["rate"] <= 0.1
        assert point["size"] in range(8, 65, 8)
        assert point["loss"] in (["x"], ["y"])
        assert point["features"]


def test_the_same_seed_and_losses_choose_the_same_points():
    assert evolved(4) == evolved(4)
    assert evolved(4) != evolved(4, seed=1)


def test_useful_features_survive():
    made = evolved(25)
    survivors = [
        Individual(name=key, point=point) for points, _ in made for point in points for key in [point_key(point)]
    ]
    last = [each for each in survivors if each.name in set(made[-1][1])]
    shares = survival(last, GROUPS[0] + GROUPS[1])
    useless = [share for name, share in shares.items() if name not in USEFUL]
    assert min(shares[name] for name in USEFUL) > max(useless)
    everyone = [Individual(name="", point=point, losses=(loss_of(point),)) for points, _ in made for point in points]
    assert set(pareto_front(everyone)[-1].features) == USEFUL


def test_a_point_is_tried_once_while_there_are_others():
    made = evolved(5, size=10)
    keys = [point_key(point) for points, _ in made for point in points]
    assert len(set(keys)) == len(keys) == 50
    few = Population([["a", "b"]], Space(), 6, 0)  # of three points
    for _ in range(3):
        points = few.ask()
        assert {len(point["features"]) for point in points} <= {1, 2}
        few.tell({point_key(point): 1.0 for point in points})


def test_nothing_is_bred_from_failed_individuals():
    made = evolved(3, loss=lambda point: math.inf if "a0" in point["features"] else loss_of(point))
    for points, survivors in made:
        good = {point_key(point) for point in points if "a0" not in point["features"]}
        assert good
        assert not any('"a0"' in key for key in survivors)


def test_no_individual_beats_the_front():
    losses = {"a": 3.0, "b": 2.0, "ab": 2.0, "ac": 1.0, "abc": 1.5, "abcd": math.inf}
    individuals = [
        Individual(name=name, point={"features": list(name)}, losses=() if math.isinf(loss) else (loss,))
        for name, loss in losses.items()
    ]
    assert [each.name for each in pareto_front(individuals)] == ["b", "ac"]
    for one, other in combinations(pareto_front(individuals), 2):
        assert len(one.features) < len(other.features)
        assert one.loss > other.loss
    assert pareto_front([]) == []


def test_survival_is_a_share():
    individuals = [Individual(name=name, point={"features": list(name)}) for name in ("ab", "a")]
    assert survival(individuals, "abc") == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert survival([], "a") == {"a": 0.0}
