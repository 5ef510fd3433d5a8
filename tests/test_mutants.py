"""The changes that `make mutants` makes, and by which tests it tries them."""

from tests.mutants import Mutant, covering, mutants_of, sample

SOURCE = '''"""A docstring that says 3 < 4."""

@jit(cache=True)
def clip(x: float = 1.5, *, strict: "int > 0" = False) -> "x + 1":
    """2 + 2."""
    if x >= 10 and not strict:
        raise ValueError(f"{x} is over {10}", 10)
    kept.append(min(x, 3), "é", x - 1)
    log.info("%s is over %s", x, 10)
    return x
'''


def test_what_computes_is_changed_on_one_line_and_what_is_told_is_not():
    found = {(mutant.line, mutant.after.strip()) for mutant in mutants_of(SOURCE, "clip.py")}
    assert found == {
        (4, 'def clip(x: float = 3.0, *, strict: "int > 0" = False) -> "x + 1":'),
        (4, 'def clip(x: float = 1.5, *, strict: "int > 0" = True) -> "x + 1":'),
        (6, "if x > 10 and not strict:"),
        (6, "if x < 10 and not strict:"),
        (6, "if x >= 11 and not strict:"),
        (6, "if x >= 10 or not strict:"),
        (6, "if x >= 10 and strict:"),
        (6, "if (not (x >= 10 and not strict)):"),
        (8, "pass"),
        (8, 'kept.append(max(x, 3), "é", x - 1)'),
        (8, 'kept.append(min(x, 4), "é", x - 1)'),
        (8, 'kept.append(min(x, 3), "é", x + 1)'),
        (8, 'kept.append(min(x, 3), "é", x - 2)'),
    }


def test_arguments_of_a_kind_change_places():
    found = [mutant.after for mutant in mutants_of("score(users, items)\n", "score.py")]
    assert found == ["pass", "score(items, users)"]


def test_the_sample_is_a_line_each_and_the_same_for_a_seed():
    drawn = sample(50, seed=3)
    assert drawn == sample(50, seed=3) != sample(50, seed=4)
    assert set(drawn) < set(sample(60, seed=3))
    assert len({(mutant.file, mutant.line) for mutant in drawn}) == 50
    for mutant in drawn:
        assert isinstance(mutant, Mutant)
        assert mutant.before != mutant.after
        assert "\n" not in mutant.after


def test_the_file_that_bears_the_name_of_a_module_tries_it_first():
    assert covering("sparkrec/kernels/retrieval/topk.py")[0] == "tests/kernels/test_topk.py"
    assert covering("sparkrec/spark/data/splits.py")[0] == "tests/spark/test_splits.py"
    assert "tests/spark/test_evaluation.py" in covering(
        "sparkrec/spark/evaluation/partial_metrics.py"
    )  # by way of sparkrec.evaluate
    assert "tests/training/test_features.py" in covering("sparkrec/kernels/gradients/perceptron.py")  # by way of others
