"""Survival from columns: units, direction, rules for impossible values."""

import doctest
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modaltune_jax.inputs.tables import endpoints
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.outcomes import outcome
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
    assert (
        "S (censorship) read as seen: 0 (1); not seen: 1 (1)"
        in counts_of(censored)["cases with survival"].reason
    )


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


@pytest.mark.parametrize("text", ["2019-03-01", "12,5", "inf", "> 3", "1_000", "none"])
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
        pytest.param("time=T,unit=days,event=T", "'T' cannot be the time and its end", id="one-column"),
        pytest.param("time=T,unit=days,event=Alive", "write censorship=Alive, or say", id="alive-as-event"),
        pytest.param("time=T,unit=days,event=Survived", "write censorship=Survived", id="survived-as-event"),
        pytest.param("time=T,unit=days,event=cens", "write censorship=cens", id="short-as-event"),
        pytest.param("time=T,unit=days,event=Zensiert", "write censorship=Zensiert", id="german-as-event"),
        pytest.param("time=T,unit=days,censorship=Died", "write event=Died", id="died-as-censorship"),
    ],
)
def test_wrong_endpoints(text, message):
    with pytest.raises(InputError, match=message):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(Endpoint("T", "days", event="Dead or censored"), id="both-in-the-name"),
        pytest.param(Endpoint("T", "days", event="Survival status"), id="survival"),
        pytest.param(Endpoint("T", "days", event="license"), id="cens-inside-a-word"),
        pytest.param(Endpoint("T", "days", event="Alive", values={"1": 0, "0": 1}), id="meanings-spelt-out"),
        pytest.param(Endpoint("T", "days", censorship="Status"), id="status"),
    ],
)
def test_names_that_contradict_nothing(endpoint):
    assert endpoint.status


def test_words_that_differ_in_capital_letters_only():
    with pytest.raises(InputError, match="'Died' means 0 and 'died' 1; capital letters make no difference"):
        Endpoint("T", "days", event="S", values={"Died": 0, "died": 1})
    assert Endpoint("T", "days", event="S", values={"Died": 1, "died": 1}).status == "S"


def test_what_was_read_is_told():
    values = {"died": 1, "alive": 0, "lost": -1}
    result = outcome(
        table("1234", ["died", "alive", "died", ""]), Endpoint("T", "months", event="S", values=values), "t"
    )
    told = "S read as seen: died (2); not seen: alive (1); unknown: empty (1), lost (0)"
    assert counts_of(result)["cases with survival"].reason == f"2 events; T in months, {told}"


@pytest.mark.parametrize(
    ("cell", "values", "event"),
    [
        pytest.param("none", {"progression": 1, "none": 0}, 0, id="none"),
        pytest.param("", {"progression": 1, "": 0}, 0, id="empty"),
        pytest.param("NA", {"progression": 1, "NA": 0}, 0, id="na"),
        pytest.param("NA", {"progression": 1, "": 0}, -1, id="na-is-not-empty"),
        pytest.param("[Not Available]", {}, -1, id="missing"),
    ],
)
def test_a_meaning_comes_before_missing(cell, values, event):
    result = outcome(table("1", [cell]), Endpoint("T", "months", event="S", values=values), "t")
    assert result.event.tolist() == [event]


@pytest.mark.parametrize(
    ("times", "unit", "message"),
    [
        pytest.param([400 + i for i in range(12)], "months", "the median is 406 months", id="days-as-months"),
        pytest.param(
            [20 + 3 * i for i in range(12)], "days", "the longest is 1.7 months", id="months-as-days"
        ),
        pytest.param([1 + i for i in range(11)] + [20], "days", "the longest", id="years-as-days"),
        pytest.param([0.5 + 0.5 * i for i in range(11)] + [15], "months", "the median", id="years-as-months"),
        pytest.param(
            [20 + i for i in range(11)] + [99999], "months", "1 case above 600 months", id="one-outlier"
        ),
    ],
)
def test_units_that_are_hard_to_believe(times, unit, message):
    events = ["0", "1"] * (len(times) // 2)
    result = outcome(table([str(time) for time in times], events), Endpoint("T", unit, event="S"), "t.csv")
    (doubt,) = (count for count in result.counts if count.suspect)
    assert message in doubt.reason
    assert f"is the unit of T really {unit}?" in doubt.reason
    known = outcome(
        table([str(time) for time in times], events),
        Endpoint("T", unit, event="S"),
        "t.csv",
        is_unit_sure=True,
    )
    assert not [count for count in known.counts if count.suspect]
    assert doubt.examples == (("case11: 99999 months",) if "above" in message else ())


def test_a_common_follow_up_is_believed():
    times = [str(6 + 2.5 * i) for i in range(30)]
    result = outcome(table(times, ["0", "1"] * 15), Endpoint("T", "months", event="S"), "t.csv")
    assert not [count for count in result.counts if count.suspect]


@pytest.mark.parametrize(
    ("times", "states", "step"),
    [
        pytest.param(["-3"] * 12, "10" * 6, "negative times", id="all-negative"),
        pytest.param([""] * 12, "10" * 6, "cases with survival", id="no-times"),
        pytest.param(["30"] * 12, [""] * 12, "times without an event", id="no-events"),
        pytest.param(["30"] * 12, "0" * 12, "cases with survival", id="all-censored"),
    ],
)
def test_survival_that_is_lost_is_suspect(times, states, step):
    result = outcome(table(times, states), Endpoint("T", "months", event="S"), "t.csv")
    assert counts_of(result)[step].suspect


@pytest.mark.parametrize(
    ("times", "states", "message"),
    [
        pytest.param(["x", "1", "y"], "101", "nor is it in 1 other case", id="times"),
        pytest.param(["1", "2", "3"], ["gone", "gone", "ill"], "nor is it in 2 other cases", id="words"),
    ],
)
def test_how_many_cells_cannot_be_read(times, states, message):
    with pytest.raises(InputError, match=message):
        outcome(table(times, states), Endpoint("T", "months", event="S"), "t.csv")


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
