import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.policy import CleaningPolicy, parse_policy


@given(
    st.sampled_from(["first", "last", "error", None]),
    st.sampled_from(["drop", "snap", None]),
    st.sampled_from(["keep", "mask", None]),
    st.sampled_from([("none", None), ("forward", None), ("forward", 3), ("linear", 12), None]),
)
def test_what_is_written_is_the_policy(duplicates, off_grid, bad_prints, gaps):
    parts = [
        *([f"duplicates={duplicates}"] if duplicates else []),
        *([f"off-grid={off_grid}"] if off_grid else []),
        *([f"bad_prints={bad_prints}"] if bad_prints else []),
        *([f"gaps={gaps[0]}" + (f":{gaps[1]}" if gaps[1] else "")] if gaps else []),
    ]
    policy = CleaningPolicy(**parse_policy(", ".join(parts) or "default"))
    fill, most = (gaps[0] if gaps[0] != "none" else None, gaps[1]) if gaps else (None, None)
    assert policy == CleaningPolicy(
        duplicates=duplicates,
        off_grid=off_grid or "drop",
        bad_prints=bad_prints or "keep",
        fill=fill,
        max_gap_size=most,
    )
    assert policy.fills_ahead == (fill == "linear" or (fill == "forward" and bad_prints == "mask"))


def test_only_what_is_said_is_there_so_that_the_rest_stays_as_it_was():
    assert parse_policy("duplicates=first") == {"duplicates": "first"}
    assert parse_policy("gaps=none") == {"fill": None, "max_gap_size": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a cleaning policy"),
        ("forward", "'forward' is not a cleaning policy"),
        ("fill=forward", "is not a cleaning policy"),
        ("gaps=forward:x", "is not a cleaning policy"),
        ("gaps=forward:-1", "is not a cleaning policy"),
        ("gaps=forward,gaps=linear", "is not a cleaning policy"),
        ("gaps=forward:0", "max_gap_size is 0: it must be at least 1"),
        ("gaps=spline", "fill is 'spline' in the cleaning policy: use one of None, 'forward', 'linear'"),
        ("duplicates=any", "duplicates is 'any' in the cleaning policy: use one of None, 'first', 'last', 'error'"),
    ],
)
def test_what_says_no_policy_is_refused(text, message):
    with pytest.raises(BitcornError) as error:
        parse_policy(text)
    assert message in str(error.value)
