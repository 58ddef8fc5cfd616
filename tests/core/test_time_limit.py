"""What a limit of time begins, keeps and says."""

import dataclasses

import pytest

from spnode_core.errors import TrainingError
from spnode_core.spec import SplitSpec, TrainingSpec
from spnode_core.training.candidates import GOOD, fallback
from spnode_core.training.contest import Contest
from spnode_core.training.execution import Execution
from spnode_core.training.fit import fit
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.parts import Parts
from spnode_core.training.progress import Reporter
from spnode_core.training.stages import OUT_OF_TIME, Record
from tests.core.test_fit import decay

LIMIT_S = 100.0
ENDED = f"{OUT_OF_TIME} in stage 'optimise' at iteration"


@dataclasses.dataclass
class Done(Execution):
    """Training that takes no time and leaves a record, or does not end well."""

    made: Record | None = None

    def run(self):
        if self.made is None:
            raise TrainingError("it takes too much of max_seconds")
        return create_surrogate(self.parts.train, self.spec, self.seed), self.made


@pytest.fixture(scope="module")
def relaxation():
    parts = Parts.of(decay(), SplitSpec(), 0)
    return parts, fallback(parts.train, None, None)


@pytest.fixture
def contest(relaxation):
    return Contest(relaxation[0], 0, Reporter(lambda _: None, None, LIMIT_S))


def enter(contest, relaxation, name, record, *, seed=0, is_last=False, **changed):
    parts, candidate = relaxation
    candidate = dataclasses.replace(candidate, name=name, **changed)
    done = Done(
        parts,
        candidate.spec,
        candidate.training,
        seed,
        contest._reporter,
        identity={},
        path=None,
        checkpoint_s=10.0,
        made=record,
    )
    contest.enter(candidate, done, is_last=is_last)


def cut_at(iteration):
    return Record(iteration=iteration, outcome=f"{ENDED} {iteration} of 8823; kept")


def use(contest, part):
    contest._reporter.earlier_s = part * LIMIT_S


def test_what_is_left_of_the_time_begins_nothing_where_a_candidate_is_there(
    contest, relaxation
):
    last = relaxation[1]
    use(contest, 0.95)
    enter(contest, relaxation, "dropped", None)
    assert not contest.leaves_out(last), "there is nothing else"
    enter(contest, relaxation, "there", Record(iteration=9000))
    assert contest.leaves_out(last)
    told = contest.winner().choices
    why = {each["value"]: each["why"] for each in told if each["what"] == "candidate"}
    assert why[last.name] == "not tried: too little of max_seconds is left"


@pytest.mark.parametrize("limit", [LIMIT_S, None])
def test_candidates_are_tried_while_there_is_time(limit, relaxation):
    contest = Contest(relaxation[0], 0, Reporter(lambda _: None, None, limit))
    contest._reporter.earlier_s = 0.5 * LIMIT_S
    enter(contest, relaxation, "there", Record(iteration=9000))
    assert not contest.leaves_out(relaxation[1])


def test_nothing_is_begun_that_could_not_be_compiled_and_judged(contest, relaxation):
    begun = contest._reporter.seconds + 30.0
    enter(contest, relaxation, "there", Record(iteration=9000, begun_s=begun))
    use(contest, 0.5)
    assert not contest.leaves_out(relaxation[1])
    use(contest, 0.72)
    assert contest.leaves_out(relaxation[1]), "another took more than 30 s"


def test_what_was_hardly_trained_wins_only_where_there_is_no_other(contest, relaxation):
    enter(contest, relaxation, "cut", cut_at(1))
    assert contest.winner().name == "cut"
    assert "max_seconds ended it at iteration 1" in contest.winner().choices[0]["why"]
    enter(contest, relaxation, "trained", cut_at(4000), seed=1)
    cut, trained = contest._entries
    contest._entries[1] = dataclasses.replace(trained, error=2 * cut.error)
    assert contest.winner().name == "trained"


def test_iterations_before_the_last_stage_and_least_squares_count(contest, relaxation):
    record = cut_at(1)
    record.history = [{"stage": "pretrain", "part": 0, "iteration": 5000}]
    assert record.iterations_done == 5001
    enter(contest, relaxation, "pretrained", record)
    enter(contest, relaxation, "cut", cut_at(19))
    assert [each.is_hardly_trained for each in contest._entries] == [False, True]


def test_a_run_without_time_makes_one_candidate():
    run = fit(decay(), training=TrainingSpec(max_seconds=0.001))
    told = [each for each in run.report["choices"] if each["what"] == "candidate"]
    made = [each for each in told if each["why"].startswith("held-out error")]
    assert len(made) == 1
    assert "max_seconds ended it at iteration 1" in made[0]["why"]
    later = told[told.index(made[0]) + 1 :]
    assert later, "others would have come after it"
    assert all(each["why"].startswith("not tried") for each in later)
    ended, missed = run.report["metrics"]["test"]["warnings"][-2:]
    assert "max_seconds reached in stage 'optimise' at iteration 1 of" in ended
    assert ended.endswith("it is hardly trained: allow more time")
    assert missed.startswith("max_seconds left too little time for a polynomial")
    assert missed.endswith(later[-1]["value"])
    assert made[0]["value"] not in missed


def test_only_what_the_limit_cost_is_said(contest, relaxation):
    enter(contest, relaxation, "dropped", None)
    enter(contest, relaxation, "trained", cut_at(4000), seed=1)
    kept = contest.winner()
    ended = kept.record.outcome
    assert contest.cautions(kept) == [
        ended,
        "max_seconds left too little time for dropped",
    ]
    good = dataclasses.replace(kept, error=GOOD / 2, record=Record(iteration=9000))
    assert contest.cautions(good) == [], "what was missed would not be better"


def test_it_is_said_where_nothing_was_held_out():
    training = TrainingSpec(iterations=400, max_seconds=0.001)
    split = SplitSpec(validation=0.0, test=0.0)
    run = fit(decay(), training=training, split=split)
    (said,) = run.report["metrics"]["train"]["warnings"]
    assert run.report["warnings"] == [said]
    assert said.startswith("max_seconds reached in stage 'optimise'")
