"""spark-submit jobs/ingest.py --config conf/ingest/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("ingest")
