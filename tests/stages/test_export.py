"""`sparkrec export`: the folder answers as the stage `recommend` does, and what cannot be exported is said."""

from dataclasses import replace

import pytest
import yaml

from sparkrec import ExportedModel
from sparkrec.cli import main
from sparkrec.config import RecommendSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import InputError
from sparkrec.fields import FieldSchema
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.model.export import export
from sparkrec.spark.model.fitted import Model
from sparkrec.stages.recommend import recommend
from sparkrec.stages.train import train

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def trained(prepared_lake):
    raw = {"lake": prepared_lake.root, "dataset": "small", "model": {"kind": "als", "rank": 4, "iterations": 2}}
    return train(validate(TrainSettings, {**raw, "name": "exported"}, "test"), prepared_lake)


def test_the_lists_of_a_folder_are_those_of_the_table(prepared_lake, trained, tmp_path, monkeypatch, capsys):
    lake = prepared_lake
    users = [row.user_id for row in Dataset.open(lake, trained.inputs["dataset"]).users.collect()]
    listed = tmp_path / "users.csv"
    listed.write_text("\n".join(map(str, ["who", *users, 987654321])) + "\n")
    source = {"source": {"path": str(listed), "format": "csv"}, "column": "who"}
    raw = {"lake": lake.root, "model": trained.reference, "k": 6, "users": source, "table": "exported_lists"}
    recommend(validate(RecommendSettings, raw, "test"), lake)
    monkeypatch.setattr("sys.argv", ["sparkrec", "export", "exported", str(tmp_path / "out"), "--lake", lake.root])
    main()
    said = yaml.safe_load(capsys.readouterr().out)
    assert said["model"] == trained.reference
    assert said["counts"]["users"] == len(users)
    expected = {}
    for row in lake.table("exported_lists").orderBy("user_id", "rank").collect():
        expected.setdefault(row.user_id, []).append(row)
    answers = ExportedModel.load(str(tmp_path / "out")).recommend([*expected], k=6)
    assert sum(answer.by == "popularity" for answer in answers) == 1
    for rows, answer in zip(expected.values(), answers, strict=True):
        assert answer.items == [row.item_id for row in rows]
        assert answer.scores.tolist() == pytest.approx([row.score for row in rows], rel=1e-5, abs=1e-6)
        assert {row.fallback for row in rows} == {answer.by == "popularity"}

    monkeypatch.setattr("sys.argv", ["sparkrec", "export", "nothing", str(tmp_path / "none"), "--lake", lake.root])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "there is no finished train run 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_depends_on_the_context_or_has_odd_ids_is_not_exported(prepared_lake, trained, tmp_path):
    lake = prepared_lake
    model, dataset = Model.load(lake, trained), Dataset.open(lake, trained.inputs["dataset"])
    dated = replace(dataset, items=dataset.items.withColumn("item_id", dataset.items.item.cast("double")))
    with pytest.raises(InputError, match="items have ids of type double; an exported model takes whole numbers or"):
        export(model, dated, str(tmp_path / "out"), reference="small@1")
    assert not [*tmp_path.glob("out/*")]
    pytest.importorskip("torch")
    from sparkrec.models.fm import FmSettings

    fields = {"layout": FieldSchema(context=(("day", 3),)).to_json(), "digest": ""}
    contextual = replace(dataset, manifest={**dataset.manifest, "fields": fields})
    with pytest.raises(InputError, match=r"a fm that sees the context \(day\) cannot be exported"):
        export(replace(model, settings=FmSettings()), contextual, str(tmp_path / "out"), reference="small@1")
