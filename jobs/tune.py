"""spark-submit jobs/tune.py --config conf/tune/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("tune")
