"""The language of `where`: what holds, what is refused and where, and what no text can do."""

import fnmatch
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.conditions import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    Field,
    bind_condition,
    parse_condition,
)
from converter.errors import UsageError

QUICK = settings(deadline=None, max_examples=300)

FIELDS = {
    "label": Field(is_number=False, read=lambda item: item.get("label", [])),
    "tags": Field(is_number=False, read=lambda item: item.get("tags", [])),
    "age": Field(is_number=True, read=lambda item: item.get("age", [])),
    "red car": Field(is_number=True, read=lambda item: item.get("red car", [])),
    "split": Field(
        is_number=False, read=lambda item: item.get("split", []), spell={"val": "validation"}.get
    ),
}
ITEM = {
    "label": ["cats"],
    "tags": ["big", "it's", "in"],
    "age": [7],
    "red car": [0.5],
    "split": ["validation"],
}


def holds(text: str, **changes: list) -> bool:
    return bind_condition(parse_condition(text), FIELDS)({**ITEM, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "label = cats",
        "label != dogs",
        "label in (dogs, cats)",
        "label in(dogs,cats)",
        "label not in (dogs)",
        "label like c*",
        "label like '?a?s'",
        "label not like '*d*'",
        "label is not missing",
        "label = cats AND NOT age < 7",
        "age = 7",
        "age = 7.0",
        "age=7 and label=cats",
        "age <= 7",
        "age >= +7",
        "age > -1e3",
        "age < .7e1 or age<8",
        "age in (1, 7)",
        "'red car' = 0.5",
        '"red car" != 0.25',
        "label >= 'c'",
        "label < d",
        "label <= '3' or label > '3'",
        "not label = dogs",
        "not not label = cats",
        "(((label = cats)))",
        "label = dogs and label = dogs or label = cats",
        "label = cats or label = dogs and label = dogs",
        "not label = dogs and age = 7",
        "tags = big",
        "tags = 'it''s'",
        'tags = "it\'s"',
        "tags = 'in'",
        "tags like b?g",
        "split = val",
        "label = cats\n\tand\u00a0age = 7",
    ],
)
def test_what_holds(text):
    assert holds(text)
    assert not holds(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "label = Cats",
        "label like C*",
        "label like at",
        "label like 'c[a]ts'",
        "tags != big",
        "tags not in (big, small)",
        "tags not like b*",
        "split = validatio",
        "label = 'and'",
    ],
)
def test_what_does_not_hold(text):
    assert not holds(text)


@pytest.mark.parametrize("test", ["= 7", "< 7", "<= 7", "> 7", ">= 7", "in (7, 8)"])
def test_a_missing_value_passes_no_test_but_the_one_for_it(test):
    assert not holds(f"age {test}", age=[])
    assert holds(f"not age {test}", age=[])
    assert holds("age is missing and age != 7 and label not like '*'", age=[], label=[])
    assert not holds("age is not missing", age=[])


def test_one_value_of_a_list_is_enough_but_not_for_not():
    assert holds("age < 3 and age > 5", age=[1, 9])
    assert not holds("age != 1", age=[1, 9])


def test_brackets_are_no_pattern_and_stars_meet_line_breaks():
    assert holds("label like '[x]*'", label=["[x] y"])
    assert not holds("label like '[x]*'", label=["x y"])
    assert holds("label like 'a*b'", label=["a\n\udcffb"])


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1])
def test_large_whole_numbers_are_compared_exactly(number):
    assert holds(f"age = {number}", age=[number])
    assert not holds(f"age = {number}", age=[number - 1])
    assert holds("age < 123456789012345678901234567890", age=[number])


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", 1, "the condition ends where a name"),
        ("   ", 4, "the condition ends"),
        ("label", 6, "the condition ends"),
        ("label cats", 7, "'cats'"),
        ("label =", 8, "the condition ends where a value"),
        ("label = = cats", 9, "'='"),
        ("label == cats", 8, "'='"),
        ("label = cats dogs", 14, "'dogs' stands where and, or"),
        ("label = cats)", 13, "')'"),
        ("(label = cats", 14, "the condition ends"),
        ("label in cats", 10, "'cats' stands where ("),
        ("label in ()", 11, "')' stands where a value"),
        ("label in (cats dogs)", 16, "'dogs' stands where , or )"),
        ("label in (cats,)", 16, "')'"),
        ("label not = cats", 11, "'=' stands where in or like"),
        ("label is cats", 10, "'cats' stands where missing"),
        ("label like (a)", 12, "'(' stands where a pattern"),
        ("and = 3", 1, "'and' stands where a name"),
        ("label = or", 9, "'or' stands where a value"),
        ("label ! cats", 7, "'!'"),
        ("label = 'cats", 9, "the quote ' is not closed"),
        ('age = 7 and label = "', 21, 'the quote " is not closed'),
        ("label = 'a'b'", 13, "the quote '"),
    ],
)
def test_what_does_not_belong_there_is_pointed_at(text, place, said):
    with pytest.raises(UsageError, match=rf"^where, character {place}: {re.escape(said)}"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("label = x and lable = 3", 15, "'lable' is unknown, did you mean label? there are age,"),
        ("zzz = 3", 1, "'zzz' is unknown: there are age, label, red car, split, tags"),
        ("age < cats", 7, "'age' holds numbers, and 'cats' is not a number"),
        ("age = '7'", 7, "'age' holds numbers, and '7' is not a number"),
        ("age in (1, nan)", 12, "'age' holds numbers, and 'nan' is not a number"),
        ("age in (1, 1_000)", 12, "'1_000' is not a number"),
        ("age = inf", 7, "'inf' is not a number"),
        ("age = 0x10", 7, "'0x10' is not a number"),
        ("age < 1e999", 7, "'1e999' is too large"),
        ("age like 7*", 10, "'age' holds numbers, and like is for text"),
        ("label < 3", 9, "'label' holds text: put '3' in quotes"),
        ("label >= -1.5", 10, "'label' holds text"),
    ],
)
def test_names_and_values_of_the_wrong_kind_are_pointed_at(text, place, said):
    condition = parse_condition(text)
    with pytest.raises(UsageError, match=rf"^where, character {place}: .*{re.escape(said)}"):
        bind_condition(condition, FIELDS)


def test_a_number_may_be_the_name_of_a_class():
    assert holds("label = 3", label=["3"])
    assert holds("label in (1, 3)", label=["3"])
    assert not holds("label = 3.0", label=["3"])


WORDS = st.sampled_from(["cats", "it's", "in", "and", "3", "a b", "", "*", "ü", "\udcff", "(", '"'])
TEXTS = st.builds(
    lambda name, sign, word: (name, sign, word),
    st.sampled_from(["label", "tags"]),
    st.sampled_from(["=", "!=", "like", "not like", "in", "not in"]),
    WORDS,
)
NUMBERS = st.builds(
    lambda sign, number: ("age", sign, number),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.integers(-3, 3),
)
TREES = st.recursive(
    TEXTS | NUMBERS,
    lambda inner: st.tuples(st.just("not"), inner) | st.tuples(inner, st.just("or"), inner)
    | st.tuples(inner, st.just("and"), inner),
    max_leaves=12,
)  # fmt: skip
ITEMS = st.fixed_dictionaries(
    {
        "label": st.lists(WORDS, max_size=1),
        "tags": st.lists(WORDS, max_size=3),
        "age": st.lists(st.integers(-3, 3), max_size=1),
    }
)


def spell(tree: tuple) -> str:
    """The text of a tree, with all parentheses."""
    match tree:
        case ("not", inner):
            return f"not ({spell(inner)})"
        case (left, "and" | "or" as word, right) if isinstance(left, tuple):
            return f"({spell(left)}) {word} ({spell(right)})"
    name, sign, value = tree
    quoted = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
    return f"{name} {sign} ({quoted})" if sign.endswith("in") else f"{name} {sign} {quoted}"


def judge(tree: tuple, item: dict) -> bool:
    """What a tree says of an item, in Python's own words."""
    match tree:
        case ("not", inner):
            return not judge(inner, item)
        case (left, "and", right) if isinstance(left, tuple):
            return judge(left, item) and judge(right, item)
        case (left, "or", right) if isinstance(left, tuple):
            return judge(left, item) or judge(right, item)
    name, sign, value = tree
    values = item[name]
    match sign:
        case "=" | "in":
            return value in values
        case "!=" | "not in":
            return value not in values
        case "like":
            return any(fnmatch.fnmatchcase(each, value) for each in values)
        case "not like":
            return not any(fnmatch.fnmatchcase(each, value) for each in values)
        case "<":
            return any(each < value for each in values)
        case "<=":
            return any(each <= value for each in values)
        case ">":
            return any(each > value for each in values)
    return any(each >= value for each in values)


@QUICK
@given(TREES, ITEMS)
def test_any_condition_means_what_it_says(tree, item):
    assert bind_condition(parse_condition(spell(tree)), FIELDS)(item) is judge(tree, item)


PIECES = st.sampled_from(
    ["label", "age", "=", "!=", "<", "(", ")", ",", "'", '"', "and", "or", "not", "in", "like",
     "is", "missing", " ", "\0", "\ud800", "7", "*", "\n", "ü", "\x1b[0m", "!", "\u202e"]
)  # fmt: skip


def find_refusal(text: str) -> str:
    """What is said of a condition; empty if it is one."""
    try:
        bind_condition(parse_condition(text), FIELDS)(ITEM)
    except UsageError as error:
        return str(error)
    return ""


@QUICK
@given(st.text(max_size=60) | st.lists(PIECES, max_size=40).map("".join))
def test_any_other_text_is_refused_in_one_line(text):
    refusal = find_refusal(text)
    assert refusal.isprintable()
    assert not refusal or refusal.startswith("where, character ")


@pytest.mark.parametrize("opening", ["(", "not ", "(not "])
def test_depth_has_a_limit(opening):
    def nest(depth: int) -> str:
        return opening * depth + "label = cats" + ")" * (opening.count("(") * depth)

    deepest = MAX_DEPTH // len(opening.replace("(", "( ").split())
    assert holds(nest(deepest)) is (deepest % 2 == 0 or "not" not in opening)
    with pytest.raises(UsageError, match=f"nested more than {MAX_DEPTH} deep"):
        parse_condition(nest(deepest + 1))
    for text in (nest(1_000), opening * 1_000, opening * 100_000):
        with pytest.raises(UsageError, match=r"^where"):
            parse_condition(text)


def test_a_flat_condition_may_be_long():
    text = " or ".join(["age = 3"] * 700 + ["label = cats"])
    assert len(text) < MAX_CHARACTERS
    assert holds(text)
    assert holds(f"label in ({', '.join(['x'] * 3_000)}, cats)")


@pytest.mark.parametrize(
    "piece", ["x", "(", "'", "''", "label = 'a' ", "\0", "\udcff", " ", "*", "<"]
)
def test_a_text_that_is_too_long_is_refused_at_once(piece):
    start = time.process_time()
    with pytest.raises(UsageError, match=rf"^where has .* at most {MAX_CHARACTERS:,}"):
        parse_condition(piece * (10**6 // len(piece)))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "text",
    [
        "'" * 9_999,
        "''" * 4_999 + "x",
        "label like '" + "*a" * 4_000 + "'",
        "(" * 9_999,
        "<" * 9_999,
    ],
)
def test_no_text_of_the_allowed_length_takes_long(text):
    start = time.process_time()
    assert find_refusal(text) or "like" in text
    assert time.process_time() - start < 2


def test_many_stars_do_not_try_all_ways():
    found = bind_condition(parse_condition(f"label like '{'a*' * 30}b'"), FIELDS)
    start = time.process_time()
    assert not found({"label": ["a" * 2_000 + "c"]})
    assert time.process_time() - start < 2


def test_what_the_docs_say_is_the_language():
    page = (Path(__file__).parents[1] / "docs" / "sources.md").read_text()
    _, _, rest = page.partition("`--where CONDITION` takes")
    shown = rest.partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert len(shown) == 2
    fields = FIELDS | {"path": FIELDS["label"], "bytes": FIELDS["age"]}
    for text in shown:
        bind_condition(parse_condition(text), fields)
    table = re.findall(r"`(name [^`]+)`", rest)
    assert len(table) == 9
    for text in table:
        parse_condition(text.replace("…", "value"))
