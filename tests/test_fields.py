"""What values become: entries of features."""

import numpy as np
import pyarrow as pa
import pytest

from sparkrec.fields import FieldCode, FieldCodes, FieldSchema, SparseFeatures, encode


def field(kind, first=10, rows=99, **given):
    about = {key: given.pop(key) for key in ("mean", "deviation", "edges", "categories") if key in given}
    settings = {"kind": kind, "column": "c", "hash_buckets": None, **given}
    return FieldCode("c", "context", settings, "string", first, rows, **about)


def entries(code, values, kind=None):
    lengths, rows, weights = code.encode(pa.array(values, kind))
    cuts = np.cumsum(lengths)[:-1]
    return [
        list(zip(r.tolist(), w.tolist(), strict=True))
        for r, w in zip(np.split(rows, cuts), np.split(weights, cuts), strict=True)
    ]


def test_a_category_is_a_row_and_null_and_the_unknown_are_others():
    code = field("categorical", categories=pa.array(["a", "b"]))
    assert entries(code, ["b", None, "z", "a"]) == [[(13, 1.0)], [(10, 1.0)], [(11, 1.0)], [(12, 1.0)]]


def test_a_hashed_category_is_its_bucket():
    code = field("categorical", hash_buckets=5)
    assert entries(code, [0, None, 4], pa.int32()) == [[(11, 1.0)], [(10, 1.0)], [(15, 1.0)]]


def test_several_categories_share_or_add_up():
    given = [["a", "b"], [], None, ["b", "z", "a"]]
    mean = field("multi", pooling="mean", categories=pa.array(["a", "b"]))
    third = pytest.approx(1 / 3)
    assert entries(mean, given) == [
        [(12, 0.5), (13, 0.5)],
        [(10, 1.0)],
        [(10, 1.0)],
        [(13, third), (11, third), (12, third)],
    ]
    add = field("multi", pooling="sum", categories=pa.array(["a", "b"]))
    assert [[weight for _, weight in row] for row in entries(add, given)] == [[1, 1], [1], [1], [1, 1, 1]]


def test_a_number_is_a_weight_and_nothing_is_a_row_of_its_own():
    given = [3.0, None, float("nan"), 1.0]
    assert entries(field("numeric", scale="standard", mean=1.0, deviation=2.0), given) == [
        [(11, 1.0)], [(10, 1.0)], [(10, 1.0)], [(11, 0.0)],
    ]  # fmt: skip
    assert entries(field("numeric", scale="log"), [-np.e + 1.0])[0] == [(11, pytest.approx(-1.0))]
    buckets = field("numeric", scale="buckets", edges=(1.0, 2.0))
    assert [row[0][0] for row in entries(buckets, [0.5, 1.0, 9.0, None])] == [11, 12, 13, 10]


def test_rows_of_data_are_their_fields_one_after_the_other():
    codes = [
        field("numeric", first=0, scale="standard"),
        field("multi", pooling="sum", categories=pa.array(["a", "b"])),
    ]
    made = encode(codes, [pa.array([0.5, None]), pa.array([["a", "b"], ["b"]])])
    assert made.start.tolist() == [0, 3, 5]
    assert made.row.tolist() == [1, 12, 13, 0, 13]
    assert made.weight.tolist() == [0.5, 1, 1, 1, 1]


def test_entries_are_taken_and_go_through_arrow():
    made = SparseFeatures(np.array([0, 2, 2, 3]), np.array([5, 6, 7], np.int32), np.array([1, 2, 3], np.float32))
    taken = made.take(np.array([2, 0, 1, 2]))
    assert taken.start.tolist() == [0, 1, 3, 3, 4]
    assert taken.row.tolist() == [7, 5, 6, 7]
    rows, weights = made.arrow()
    again = SparseFeatures.of_arrow(rows.slice(1), weights.slice(1))
    assert again.start.tolist() == [0, 0, 1]
    assert again.row.tolist() == [7]
    assert again.weight.tolist() == [3]


def test_categories_are_found_in_other_codes_by_their_names():
    def codes(categories, *, buckets=4, first=0):
        kinds = field("categorical", first, 2 + len(categories), categories=pa.array(categories))
        hashed = FieldCode("h", "item", {"kind": "multi", "hash_buckets": buckets}, "int", 90, 1 + buckets)
        return FieldCodes((kinds, hashed))

    new, old = codes(["a", "b", "d"]), codes(["b", "c", "d"], first=20)
    assert new.rows_in(old).tolist() == [20, 21, -1, 22, 24, 90, 91, 92, 93, 94]
    assert new.rows_in(codes(["b"], buckets=5)).tolist() == [0, 1, -1, 2, -1, *[-1] * 5]
    assert new.rows_in(FieldCodes(old.fields[1:])).tolist() == [-1] * 5 + [90, 91, 92, 93, 94]


def test_codes_come_back_from_their_tables():
    numeric = FieldCode(
        "n", "item", {"kind": "numeric", "column": "n", "scale": "buckets"}, "double", 4, 4, edges=(1.0, 2.5)
    )
    codes = FieldCodes(
        (
            FieldCode("g", "user", {"kind": "multi", "column": "g", "pooling": "mean", "hash_buckets": None},
                      "array<string>", 0, 4, categories=pa.array(["x", "y"])),
            numeric,
        )
    )  # fmt: skip
    again = FieldCodes.of_tables(*codes.tables())
    assert again.digest == codes.digest
    assert again.fields[1] == numeric
    assert again.fields[0].categories.to_pylist() == ["x", "y"]
    assert codes.layout == FieldSchema(user=(("g", 4),), item=(("n", 4),))
    assert FieldSchema.from_json(codes.layout.to_json()) == codes.layout
    assert codes.layout.names == ["user", "g", "item", "n"]
    assert codes.layout.field_of.tolist() == [0] * 4 + [0] * 4
    other = FieldCodes((codes.fields[0], FieldCode("n", "item", numeric.settings, "double", 4, 4, edges=(1.0, 2.6))))
    assert other.digest != codes.digest
