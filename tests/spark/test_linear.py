"""Ridge regression on attributes: right, whatever is missing; plain about what it cannot use."""

import numpy as np
import pytest

from sparkrec.config import AttributeSettings, SourceSettings
from sparkrec.errors import InputError, TrainError
from sparkrec.spark.algorithms.linear import LinearSettings, fit_linear
from sparkrec.spark.data.fit_inputs import FitInputs

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS = 40, 12
GENRES = ["drama", "comedy", "noir"]
AGES = [20.0 + 3 * user for user in range(N_USERS)]
SEXES = ["f" if user % 3 else "m" for user in range(N_USERS)]
TAGS = [[genre for bit, genre in enumerate(GENRES) if (item + 1) >> bit & 1] for item in range(N_ITEMS)]


@pytest.fixture
def attributes(spark, tmp_path):
    """Settings of attributes in a Parquet file of these columns."""

    def make(rows, schema, columns, **settings):
        path = str(tmp_path / schema.split()[0])
        spark.createDataFrame(rows, schema).coalesce(1).write.mode("overwrite").parquet(path)
        source = SourceSettings(path=path, format="parquet")
        return AttributeSettings(source=source, id=schema.split()[0], columns=columns, **settings)

    return make


@pytest.fixture
def users(attributes):
    rows = [(f"u{user}", AGES[user], SEXES[user]) for user in range(N_USERS)]
    return attributes(rows, "uid string, age double, sex string", ["age", "sex"])


@pytest.fixture
def items(attributes):
    rows = [(f"i{item}", TAGS[item], 1990 + item) for item in range(N_ITEMS)]
    return attributes(rows, "iid string, genres array<string>, year int", ["genres", "year"])


def features():
    """Rows of the two sources as dense features: (N_USERS, 3), (N_ITEMS, 4)."""
    ages, years = np.array(AGES), 1990.0 + np.arange(N_ITEMS)
    sexes = [[sex == "f", sex == "m"] for sex in SEXES]
    genres = [[genre in tags for genre in GENRES] for tags in TAGS]
    return (
        np.column_stack([(ages - ages.mean()) / ages.std(), sexes]),
        np.column_stack([(years - years.mean()) / years.std(), genres]),
    )


def planted(noise=0.3):
    """Ratings that the attributes explain up to noise, and the features of each."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.5)
    of_user, of_item = features()
    x = np.hstack([of_user[users], of_item[items]])
    values = 3 + x @ [0.5, 0.3, -0.3, 0.2, 0.8, -0.6, 0.4] + noise * rng.normal(size=len(users))
    return users, items, values.astype(np.float32), x


def fit(settings, dataset):
    return fit_linear(settings, FitInputs(dataset, dataset.train, 0, "unused"))


@pytest.mark.parametrize("regularization", [0.0, 7.0])
def test_the_fit_is_the_dense_ridge_solution(dataset_of, scores_of, users, items, regularization):
    u, i, values, x = planted()
    dataset = dataset_of(zip(u, i, values, strict=True), N_USERS, N_ITEMS, explicit=True)
    model = fit(LinearSettings(users=users, items=items, regularization=regularization), dataset)
    centred = x - x.mean(0)
    gram = centred.T @ centred + regularization * np.eye(x.shape[1])
    weights = np.linalg.pinv(gram, rcond=1e-10) @ centred.T @ (values - values.mean())
    of_user, of_item = features()
    every = np.hstack([np.repeat(of_user, N_ITEMS, 0), np.tile(of_item, (N_USERS, 1))]) - x.mean(0)
    expected = (values.mean() + every @ weights).reshape(N_USERS, N_ITEMS)
    np.testing.assert_allclose(scores_of(model), expected, atol=1e-4)


def test_planted_weights_are_recovered(dataset_of, scores_of, users, items):
    u, i, values, _ = planted(noise=0.0)
    dataset = dataset_of(zip(u, i, values, strict=True), N_USERS, N_ITEMS, explicit=True)
    scores = scores_of(fit(LinearSettings(users=users, items=items, regularization=1e-6), dataset))
    np.testing.assert_allclose(scores[u, i], values, atol=1e-4)


def test_who_has_no_attributes_is_the_average_one(dataset_of, scores_of, users):
    u, i, values, _ = planted()
    # user 40 is rated like the others, but not in the source
    triples = [*zip(u, i, values, strict=True), (N_USERS, 0, 3.0)]
    dataset = dataset_of(triples, N_USERS + 2, N_ITEMS, explicit=True)
    scores = scores_of(fit(LinearSettings(users=users), dataset))
    mean = np.mean([value for *_, value in triples])
    np.testing.assert_allclose(scores[N_USERS:], mean, rtol=1e-6)
    assert scores[:N_USERS].std() > 0.1


def test_missing_values_are_the_mean_or_a_category_of_their_own(dataset_of, scores_of, attributes):
    rows = [
        ("i0", 1.0, "a", ["x"]),
        ("i1", None, "a", ["x"]),
        ("i2", float("nan"), "a", ["x"]),
        ("i3", 3.0, "a", ["x"]),
        ("i4", 2.0, None, ["x"]),
        ("i5", 2.0, "a", None),
    ]
    items = attributes(rows, "iid string, n double, c string, t array<string>", ["n", "c", "t"])
    value = [1.0, 2.0, 2.0, 3.0, 5.0, 7.0]
    dataset = dataset_of([(u, i, value[i]) for u in range(3) for i in range(6)], 3, 6, explicit=True)
    scores = scores_of(fit(LinearSettings(items=items, regularization=1e-9), dataset))
    np.testing.assert_allclose(scores, np.tile(value, (3, 1)), atol=1e-5)


def test_rare_categories_share_a_feature(dataset_of, scores_of, attributes):
    rows = [(0, "a"), (1, "a"), (2, "b"), (3, "c")]
    items = attributes(rows, "iid int, c string", ["c"], min_count=2)
    triples = [(u, i, [1.0, 1.0, 2.0, 4.0][i]) for u in range(3) for i in range(4)]
    dataset = dataset_of(triples, 3, 4, explicit=True, id_type="long")
    model = fit(LinearSettings(items=items, regularization=1e-9), dataset)
    assert model.facts["item_features"] == 2
    np.testing.assert_allclose(scores_of(model)[0], [1, 1, 3, 3], atol=1e-5)


def test_an_array_has_a_category_once_an_empty_one_has_none_and_a_void_column_adds_nothing(
    dataset_of, scores_of, attributes
):
    rows = [
        (0, ["a", "a", None], None),
        (1, ["a"], None),
        (2, ["b", "c", "c", "d"], None),  # c, d and e are rare
        (3, ["b"], None),
        (4, [], None),
        (5, None, None),
        (6, ["e"], None),
    ]
    items = attributes(rows, "iid int, t array<string>, n double", ["t", "n"], min_count=2)
    value = [2.0, 2.0, 4.5, 3.0, 1.0, 7.0, 2.5]
    dataset = dataset_of([(u, i, value[i]) for u in range(3) for i in range(7)], 3, 7, explicit=True, id_type="long")
    model = fit(LinearSettings(items=items, regularization=1e-9), dataset)
    assert model.facts["item_features"] == 4
    np.testing.assert_allclose(scores_of(model), np.tile(value, (3, 1)), atol=1e-5)


def test_what_cannot_be_used_is_said(dataset_of, attributes, users, monkeypatch):
    dataset = dataset_of([(0, 0, 1.0), (1, 0, 2.0)], 2, 1, explicit=True)
    implicit = dataset_of([(0, 0, 1.0)], 2, 1)
    with pytest.raises(TrainError, match=r"implicit dataset has the value 1"):
        fit(LinearSettings(users=users), implicit)
    with pytest.raises(InputError, match=r"model.users.source .* has no column 'size'. It has 'uid', 'age', 'sex'"):
        fit(LinearSettings(users=users.model_copy(update={"columns": ["size"]})), dataset)
    twice = attributes([("u0", 1), ("u0", 2)], "uid string, n int", ["n"])
    with pytest.raises(TrainError, match=r"has user 'u0' 2 times, expected once"):
        fit(LinearSettings(users=twice), dataset)
    strangers = attributes([("v0", 1)], "uid string, n int", ["n"])
    with pytest.raises(TrainError, match=r"knows none of the dataset's users. Its column 'uid'"):
        fit(LinearSettings(users=strangers), dataset)
    odd = attributes([("u0", {"a": 1})], "uid string, m map<string,int>", ["m"])
    with pytest.raises(TrainError, match=r"'m' is of type map<string,int>, expected numbers"):
        fit(LinearSettings(users=odd), dataset)
    endless = attributes([("u0", float("inf"))], "uid string, n double", ["n"])
    with pytest.raises(TrainError, match=r"model.users.source .*: feature 'n' is infinite in 1 rows"):
        fit(LinearSettings(users=endless), dataset)
    wide = attributes([("u0", "a"), ("u1", "b")], "uid string, c string", ["c"])
    monkeypatch.setattr("sparkrec.spark.data.attributes.MAX_FEATURES", 2)
    with pytest.raises(
        TrainError, match=r"more than 2 features; the widest column is 'c' with 2 categories.*min_count"
    ):
        fit(LinearSettings(users=wide), dataset)
