"""Places by what they are worth, words by what is likeliest; worked by hand."""

import numpy as np
import pytest

from getok_drive.tokens.choosing import DELETE_ABOVE, choose, decide
from getok_drive.tokens.grammar import ProposeGrammar, RefineGrammar
from getok_drive.tokens.vocab import TABLE, TOKEN_ID, TOKENS


def ids(text: str) -> list[int]:
    return [TOKEN_ID[f"<{word}>"] for word in text.split()]


def scores(**chances: float) -> np.ndarray:
    """Logits of tokens with these probabilities; what is left is spread over all others."""
    logits = np.full(len(TOKENS), np.log(max(1e-9, 1 - sum(chances.values())) / len(TOKENS)))
    for word, chance in chances.items():
        logits[TOKEN_ID[f"<{word}>"]] = np.log(chance)
    return logits.astype(np.float32)


def proposal(text: str) -> ProposeGrammar:
    grammar = ProposeGrammar()
    for token in ids(text):
        grammar.advance(token)
    return grammar


def refinement(text: str, answered: str = "offset") -> RefineGrammar:
    grammar = RefineGrammar(ids(f"{text} /scene"))
    for token in ids(answered):
        grammar.advance(token)
    return grammar


ALONE_OR_THREE = scores(grid_5_5=0.3, grid_20_10=0.22, grid_20_11=0.24, grid_20_12=0.22)


@pytest.mark.parametrize("start", ["box car", "box car grid_2_2", "sign stop red"])
def test_three_cells_in_a_row_beat_one_alone(start):
    grammar = proposal(start)
    assert choose(grammar, ALONE_OR_THREE) == TOKEN_ID["<grid_5_5>"]
    assert decide(grammar, ALONE_OR_THREE) == TOKEN_ID["<grid_20_11>"]


@pytest.mark.parametrize("start", ["lane solid white", "drivable"])
def test_neighbours_above_and_below_do_not_count_for_lanes_and_areas(start):
    assert decide(proposal(start), ALONE_OR_THREE) == TOKEN_ID["<grid_5_5>"]


def test_a_lanes_neighbours_are_left_and_right():
    beside = scores(grid_5_5=0.3, grid_20_11=0.22, grid_21_11=0.24, grid_22_11=0.22)
    assert decide(proposal("lane solid white"), beside) == TOKEN_ID["<grid_21_11>"]
    assert decide(proposal("drivable"), beside) == TOKEN_ID["<grid_5_5>"]


def test_what_the_grammar_forbids_is_worth_nothing():
    """The second corner may not lie left of the first: two of the three cells are out, and the third is not enough."""
    grammar = proposal("box car grid_4_4")
    wanted = scores(grid_5_5=0.3, grid_2_6=0.3, grid_3_6=0.3, grid_4_6=0.05)
    assert decide(grammar, wanted) == TOKEN_ID["<grid_5_5>"]


def test_a_sure_model_gets_what_it_asks_for():
    for start in ("box car", "sign stop red"):
        assert decide(proposal(start), scores(grid_7_9=0.999)) == TOKEN_ID["<grid_7_9>"]
    corner = refinement("box car grid_4_4 grid_8_8", "offset grid_4_4")
    assert decide(corner, scores(OFF_1_1=0.999)) == TOKEN_ID["<OFF_1_1>"]


def test_a_boxs_corner_takes_the_offset_next_to_the_expected_move():
    """0.4 of -1 and 0.35 of +1 are -0.05 on average: staying errs least, though -1 is likelier."""
    torn = scores(**{"OFF_-1_0": 0.4, "OFF_1_0": 0.35, "OFF_0_0": 0.2})
    corner = refinement("box car grid_4_4 grid_8_8", "offset grid_4_4")
    assert choose(corner, torn) == TOKEN_ID["<OFF_-1_0>"]
    assert decide(corner, torn) == TOKEN_ID["<OFF_0_0>"]
    lane = refinement("lane solid white grid_4_20 grid_5_10", "offset grid_4_20")
    assert decide(lane, torn) == TOKEN_ID["<OFF_-1_0>"]


def test_an_offset_out_of_the_picture_gives_way_to_the_next_nearest():
    """Half a cell to the left is the picture's border: a quarter more is outside, whatever the model wants."""
    corner = refinement("box car grid_0_4 grid_8_8", "offset grid_0_4 OFF_-1_0")
    wanted = scores(**{"OFF_-1_0": 0.98})
    assert not corner.accepts(TOKEN_ID["<OFF_-1_0>"])
    assert decide(corner, wanted) == TOKEN_ID["<OFF_0_0>"]


@pytest.mark.parametrize(("chance", "goes"), [(DELETE_ABOVE - 0.05, False), (DELETE_ABOVE + 0.05, True)])
def test_delete_has_to_be_likelier_than_its_threshold(chance, goes):
    wanted = scores(DELETE=chance, OFF_0_1=(1 - chance) * 0.9)
    for text, first in (("box car grid_4_4 grid_8_8", "grid_4_4"), ("sign stop red grid_4_4", "grid_4_4")):
        grammar = refinement(text, f"offset {first}")
        assert choose(grammar, wanted) == TABLE.delete
        assert decide(grammar, wanted) == (TABLE.delete if goes else TOKEN_ID["<OFF_0_1>"])


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_scores_that_are_no_numbers_still_give_a_legal_token(value):
    broken = np.full(len(TOKENS), value, np.float32)
    for grammar in (proposal("box car"), proposal("sign stop red")):
        assert grammar.accepts(decide(grammar, broken))
    corner = refinement("box car grid_4_4 grid_8_8", "offset grid_4_4")
    assert corner.accepts(decide(corner, broken))
