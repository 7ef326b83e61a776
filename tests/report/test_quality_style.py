import re

from bitcorn_ray.market.diagnosis import diagnose
from bitcorn_ray.report.quality_style import MARKS


def test_every_kind_of_mark_has_a_sign_of_its_own(random_bars):
    assert set(MARKS) == set(diagnose(random_bars(50)).marks)
    assert len(set(MARKS.values())) == len(MARKS)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for _, colour, _ in MARKS.values())
