"""spark-submit jobs/evaluate.py --config conf/evaluate/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("evaluate")
