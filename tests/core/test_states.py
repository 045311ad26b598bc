import pytest

from incomingd.states import MOVES, Stage, State, may_move


def test_the_table_names_every_stage() -> None:
    assert set(MOVES) == set(Stage)


@pytest.mark.parametrize(
    ("state", "stages"),
    [
        (State.PENDING, {"receiving", "claimed"}),
        (State.RUNNING, {"checking", "queued", "publishing"}),
        (State.SUCCEEDED, {"published"}),
        (State.FAILED, {"rejected", "abandoned", "cancelled"}),
    ],
)
def test_states_are_those_of_the_contract(state: State, stages: set[str]) -> None:
    assert {stage for stage in Stage if stage.state is state} == stages


def test_nothing_leaves_an_end() -> None:
    for stage in Stage:
        if stage.state in (State.SUCCEEDED, State.FAILED):
            assert stage.ended
            assert not any(may_move(stage, target) for target in Stage)


def test_an_end_can_be_reached_from_everywhere_else() -> None:
    for stage in Stage:
        seen, front = {stage}, [stage]
        while front:
            for target in MOVES[front.pop()] - seen:
                seen.add(target)
                front.append(target)
        assert stage.ended or Stage.PUBLISHED in seen
