"""spark-submit jobs/prepare.py --config conf/prepare/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("prepare")
