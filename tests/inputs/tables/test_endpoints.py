"""Survival from columns: units, direction, rules for impossible values."""

import doctest
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs.tables import endpoints
from modaltune_jax.inputs.tables.endpoints import Endpoint, outcome
from modaltune_jax.types import InputError


def table(times, states):
    index = [f"case{i}" for i in range(len(times))]
    return pd.DataFrame({"T": list(times), "S": list(states)}, index=index, dtype=object)


def counts_of(result):
    return {count.step: count for count in result.counts}


def test_doctests():
    assert doctest.testmod(endpoints).attempted > 0
    assert doctest.testmod(endpoints).failed == 0


@pytest.mark.parametrize(
    ("unit", "months"), [("days", 304.4 / 30.44), ("months", 304.4), ("years", 12 * 304.4)]
)
def test_units(unit, months):
    result = outcome(table(["304.4"], ["1"]), Endpoint("T", unit, event="S"), "t.csv")
    np.testing.assert_allclose(result.time, [months], rtol=1e-12)


@pytest.mark.parametrize(
    ("words", "events"),
    [
        pytest.param(["0", "1", ""], [0, 1, -1], id="numbers"),
        pytest.param(["0.0", "1.0", ""], [0, 1, -1], id="floats"),
        pytest.param(["False", "TRUE", ""], [0, 1, -1], id="booleans"),
        pytest.param(["Alive", "Dead", ""], [0, 1, -1], id="vital-status"),
        pytest.param(["0:LIVING", "1:DECEASED", ""], [0, 1, -1], id="cbioportal"),
        pytest.param(["no", "Yes", ""], [0, 1, -1], id="yes-no"),
    ],
)
def test_words_of_events(words, events):
    result = outcome(table("123", words), Endpoint("T", "months", event="S"), "t.csv")
    assert result.event.tolist() == events


def test_censorship_is_the_opposite_of_an_event():
    cells = table("12", ["0", "1"])
    seen = outcome(cells, Endpoint("T", "months", event="S"), "t.csv")
    censored = outcome(cells, Endpoint("T", "months", censorship="S"), "t.csv")
    assert seen.event.tolist() == [0, 1]
    assert censored.event.tolist() == [1, 0]
    assert "1 in S means censored" in counts_of(censored)["cases with survival"].reason


def test_words_of_the_user_replace_ours():
    own = {"Lost": -1, "Died": 1, "Well": 0}
    result = outcome(
        table("123", ["died", "well", "LOST"]), Endpoint("T", "days", event="S", values=own), "t.csv"
    )
    assert result.event.tolist() == [1, 0, -1]
    with pytest.raises(
        InputError, match=r"t.csv: case case0: S is '1', which is none of died, lost, well; .*event_values"
    ):
        outcome(table("1", ["1"]), Endpoint("T", "days", event="S", values=own), "t.csv")


def test_a_word_of_the_other_direction_is_refused():
    with pytest.raises(InputError, match=r"S is 'dead', which is none of .*censorship_values"):
        outcome(table("1", ["dead"]), Endpoint("T", "days", censorship="S"), "t.csv")


def test_impossible_values_by_rule_each_counted():
    cells = table(["-3", "", "5", "0", "7", ""], ["1", "1", "", "0", "1", ""])
    result = outcome(cells, Endpoint("T", "months", event="S"), "t.csv")
    np.testing.assert_array_equal(result.time, [math.nan, math.nan, 5, 0, 7, math.nan])
    assert result.event.tolist() == [-1, -1, -1, 0, 1, -1]
    counts = counts_of(result)
    assert counts["negative times"].examples == ("case0",)
    assert counts["events without a time"].examples == ("case0", "case1")
    assert counts["times without an event"].examples == ("case2",)
    assert counts["times of zero"].examples == ("case3",)
    assert (counts["cases with survival"].before, counts["cases with survival"].after) == (6, 2)


def test_days_called_months_are_suspected_and_kept():
    result = outcome(table(["1200", "900", "2"], "101"), Endpoint("T", "months", event="S"), "t.csv")
    assert result.time.tolist() == [1200, 900, 2]
    assert "is the unit of T really months?" in counts_of(result)["times too long to believe"].reason


@pytest.mark.parametrize("text", ["2019-03-01", "12,5", "inf", "> 3"])
def test_times_that_are_no_numbers(text):
    with pytest.raises(
        InputError, match=r"t.csv: case case0: T is .* which is no number of days; give the time"
    ):
        outcome(table([text], "1"), Endpoint("T", "days", event="S"), "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("time=T,unit=days", "name exactly one", id="no-direction"),
        pytest.param("time=T,unit=days,event=S,censorship=C", "name exactly one", id="both-directions"),
        pytest.param("time=T,event=S", "its unit, days, months or years", id="no-unit"),
        pytest.param("time=T,unit=weeks,event=S", "unit 'weeks'", id="unknown-unit"),
        pytest.param("unit=days,event=S", "name the column of the time", id="no-time"),
        pytest.param("time=T,unit=days,status=S", "cannot read 'status=S'", id="unknown-key"),
        pytest.param("time=T,unit=days,event=S,event=D", "cannot read 'event=D'", id="key-twice"),
        pytest.param(
            "time=T,unit=days,event=censorship", "write censorship=censorship", id="censorship-as-event"
        ),
        pytest.param(
            "time=T,unit=days,censorship=OS_event", "write event=OS_event", id="event-as-censorship"
        ),
    ],
)
def test_wrong_endpoints(text, message):
    with pytest.raises(InputError, match=message):
        Endpoint.parse(text)


def test_wrong_values():
    with pytest.raises(InputError, match="'gone' means 2; write 1, 0 or -1"):
        Endpoint("T", "days", event="S", values={"gone": 2})


cells = st.tuples(
    st.one_of(st.just(""), st.floats(-1e4, 1e4).map(str)), st.sampled_from(["", "0", "1", "dead", "Alive"])
)


@given(st.lists(cells, max_size=20))
def test_every_case_is_labelled_or_reported(rows):
    result = outcome(
        table([row[0] for row in rows], [row[1] for row in rows]), Endpoint("T", "days", event="S"), "t"
    )
    counts = counts_of(result)
    has_label = result.event != -1
    assert not np.isnan(result.time[has_label]).any()
    assert not (result.time < 0).any()
    assert counts["cases with survival"].after == has_label.sum()
    given_events = sum(state != "" for _, state in rows)
    lost = counts["events without a time"].before if "events without a time" in counts else 0
    assert given_events == has_label.sum() + lost
    given_times = sum(time != "" for time, _ in rows)
    negative = counts["negative times"].before if "negative times" in counts else 0
    assert given_times == (~np.isnan(result.time)).sum() + negative
