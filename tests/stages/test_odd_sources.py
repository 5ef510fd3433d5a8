"""Files that are not what they seem: read as they are meant, counted, or refused by name."""

import pytest

from sparkrec.config import ColumnSettings, IngestSettings, SourceSettings
from sparkrec.errors import IngestError, InputError
from sparkrec.spark.platform.sources import read_source
from sparkrec.stages.ingest import ingest

pytestmark = pytest.mark.spark


@pytest.fixture
def take(lake, tmp_path):
    """Ingest files, bytes by name, of one folder."""

    def call(files, form="csv", options=None, **settings):
        folder = tmp_path / "log"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = SourceSettings(path=str(folder), format=form, options=options or {})
        columns = ColumnSettings(user="u", item="i", event="e")
        settings = {"max_rejected": 0.9, **settings}
        return ingest(IngestSettings(lake=lake.root, source=source, columns=columns, **settings), lake)

    return call


def rows(lake):
    return {(row.user_id, row.item_id, row.event) for row in lake.table("interactions").collect()}


@pytest.mark.parametrize("second", ["i,u,e\nb,v,x\n", "u,i,e,z\nv,b,x,1\n", "u,i\nv,b\n", "u,i,u\nv,b,x\n"])
def test_a_file_whose_header_is_another_is_refused_by_name(take, lake, second):
    with pytest.raises(
        InputError, match=r"cannot read \S*/log/[ab].csv: .*(CSV header|column in CSV header)"
    ) as refused:
        take({"a.csv": "u,i,e\nu,a,x\n", "b.csv": second})
    assert "\n" not in str(refused.value)
    assert not lake.has_table("interactions")


def test_marks_of_byte_order_and_headers_in_other_case_change_nothing(take, lake):
    take({"a.csv": b"\xef\xbb\xbfu,i,e\nu,a,x\n", "b.csv": "U,I,E\nv,b,x\n"})
    assert rows(lake) == {("u", "a", "x"), ("v", "b", "x")}


def test_rows_of_another_length_and_texts_that_end_too_early_are_counted_with_their_text(take, lake):
    lines = ["u,a,x", "v,b", "w,c,x,7", '"open,d,x', 'y,"two', 'lines",x', r'z,"a \"q\"",x']
    batch = take({"a.csv": "u,i,e\n" + "\n".join(lines) + "\n"})
    assert batch.rows == 1
    assert batch.rejected == {"malformed": 6}
    kept = [row.row for row in lake.table("interactions_rejected").collect()]
    assert any('"_malformed":"w,c,x,7"' in row for row in kept)


def test_quotes_are_doubled_as_rfc_4180_has_them_and_otherwise_by_an_option(take, lake):
    take({"a.csv": 'u,i,e\n"a ""q"", b",5" disc,x\n'})
    assert rows(lake) == {('a "q", b', '5" disc', "x")}


def test_an_option_of_the_source_goes_before_ours(take, lake):
    take({"a.csv": 'u,i,e\n"a \\"q\\", b",c,"two\nlines"\n'}, options={"escape": "\\", "multiLine": "true"})
    assert rows(lake) == {('a "q", b', "c", "two\nlines")}


def test_bytes_that_are_no_characters_are_counted_and_read_by_their_encoding(take, lake, tmp_path):
    content = "u,i,e\nJosé,a,x\nAna,b,x\n".encode("latin-1")
    with pytest.raises(IngestError, match=r"\(bad_encoding 1\).*set source.options.encoding"):
        take({"a.csv": content}, max_rejected=0.1)
    source = SourceSettings(path=str(tmp_path / "log"), format="csv", options={"encoding": "ISO-8859-1"})
    ingest(IngestSettings(lake=lake.root, source=source, columns=ColumnSettings(user="u", item="i", event="e")), lake)
    assert rows(lake) == {("José", "a", "x"), ("Ana", "b", "x")}


def test_lines_of_json_that_are_none_are_counted(take, lake):
    batch = take({"a.json": '{"u": "u", "i": "a", "e": "x"}\n{"u": "v",\n'}, form="json")
    assert (batch.rows, batch.rejected) == (1, {"malformed": 1})


@pytest.mark.parametrize(
    ("name", "form", "content"),
    [
        ("a.csv.gz", "csv", b"u,i,e\nu,a,x\n"),
        ("a.json.gz", "json", b'{"u": 1}\n'),
        ("a.parquet", "parquet", b"PAR1 no"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named_in_a_sentence(take, name, form, content):
    with pytest.raises(
        InputError, match=rf"cannot read \S*/log/{name}: .*\. Mend the file, or leave it out\."
    ) as refused:
        take({name: content}, form=form)
    assert "\tat " not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_an_option_that_the_reader_does_not_know_is_told(take):
    with pytest.raises(InputError, match=r"not readable as csv \(.*nope.*\). Correct .* source.options"):
        take({"a.csv": "u,i,e\n"}, options={"encoding": "nope"})


def test_a_source_of_features_refuses_malformed_rows(spark, tmp_path):
    from sparkrec.spark.platform.failures import mendable

    (tmp_path / "items.csv").write_text("item,kind\n1,a\n2\n")
    items = read_source(spark, SourceSettings(path=str(tmp_path / "items.csv"), format="csv"))
    with pytest.raises(InputError, match=r"items.csv: Malformed CSV record: 2"), mendable():
        items.select("item").collect()
