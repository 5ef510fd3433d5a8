"""spark-submit jobs/run.py --config conf/pipeline/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("run")
