"""spark-submit jobs/recommend.py --config conf/recommend/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("recommend")
