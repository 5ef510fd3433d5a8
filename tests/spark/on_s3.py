"""What a session does on S3 that has its credentials from Spark's settings: python -m tests.spark.on_s3 JSON

JSON is {conf, config, bucket, local}: settings of the session, a config of a pipeline, a bucket whose folder `lake` the
pipeline has written to, and a folder of this machine. What came out is printed, as JSON.
"""

import json
import sys
import time

from sparkrec import storage
from sparkrec.config import IngestSettings, PipelineSettings, SourceSettings, SparkSettings, TrainSettings
from sparkrec.configfile import read_yaml, validate
from sparkrec.errors import SparkrecError
from sparkrec.spark.platform.few import SETTING
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.spark.platform.sources import read_source
from sparkrec.stages.ingest import ingest
from sparkrec.stages.pipeline import run
from sparkrec.stages.train import train

NETWORK = {"kind": "gmf", "dim": 4, "training": {"epochs": 1, "processes": 2, "launcher": "torch"}}


def recommendations(lake):
    rows = lake.table("recommendations").select("user_id", "rank", "item_id", "score").collect()
    return sorted((row.user_id, row["rank"], row.item_id, round(row.score, 4)) for row in rows)


def refusal(work):
    """What an error says, and after how many seconds."""
    started = time.monotonic()
    try:
        work()
    except SparkrecError as error:
        return [str(error), time.monotonic() - started]
    return ["nothing was refused", 0.0]


def main(conf, config, bucket, local):
    raw = read_yaml(config)
    settings = validate(PipelineSettings, {**raw, "lake": local}, "test")
    spark = open_session(SparkSettings(**{**raw["spark"], "conf": {**raw["spark"]["conf"], **conf}}))
    lake = Lake(spark, f"s3a://{bucket}/lake")
    said = {"there": recommendations(lake), "other scheme": Lake(spark, f"s3://{bucket}/lake").table_version("metrics")}
    run(settings, twin := Lake(spark, local))
    said["here"] = recommendations(twin)

    spark.conf.set(SETTING, "never")  # Spark's tasks write what the processes read
    network = {"lake": lake.root, "dataset": "small", "model": NETWORK}
    said["network"] = train(validate(TrainSettings, network, "test"), lake).path
    spark.conf.unset(SETTING)

    batch = {**raw["ingest"][0], "batch": "refused"}
    for name in ("nowhere", "readonly", "expired", "closed"):
        root = f"s3a://{name}/lake"
        one = validate(IngestSettings, {"lake": root, **batch}, "test")
        source = SourceSettings(path=f"{root}/events.csv", format="csv")
        said[name] = {
            "by Spark, reading": refusal(lambda source=source: read_source(spark, source)),
            "by pyarrow, writing": refusal(lambda root=root: storage.write_json(f"{root}/a.json", {})),
        }
        if name != "closed":  # where reading has waited already
            writing = refusal(lambda one=one, root=root: ingest(one, Lake(spark, root)))
            said[name]["by Spark, writing"] = writing
    print(json.dumps(said))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
