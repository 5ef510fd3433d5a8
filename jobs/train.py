"""spark-submit jobs/train.py --config conf/train/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("train")
